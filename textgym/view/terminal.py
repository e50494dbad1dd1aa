"""An episode in the terminal: each token on the colour of its reward.

Left out on purpose: layout of many episodes; a caller prints as many as it likes.
"""

from __future__ import annotations

from rich.text import Text

from textgym.episode import Episode, Release
from textgym.tokenizer import TextTokenizer

_MARKS = str.maketrans({"\n": "⏎", "\t": "⇥"})


def token_heatmap(episode: Episode, release: Release, tokenizer: TextTokenizer) -> Text:
    """Write the response token by token: green for reward, red for penalty, dim where the environment wrote.

    Tokens are shown as they were sampled, special ones included; the numbers behind rewarded tokens are their rewards.
    """
    line = Text()
    largest = max(1e-12, float(abs(release.token_rewards).max()))
    for i, token in enumerate(episode.ids.tolist()):
        start, end = episode.offsets[i]
        written = episode.text[start:end].translate(_MARKS) or tokenizer.piece(token)
        reward = float(release.token_rewards[i])
        if reward:
            shade = int(80 + 120 * abs(reward) / largest)
            line.append(written, style=f"bold white on rgb(0,{shade},0)" if reward > 0 else f"bold white on rgb({shade},0,0)")
            line.append(f"({reward:+.3g})", style="green" if reward > 0 else "red")
        else:
            line.append(written, style="" if episode.agent_mask[i] else "dim")
    return line

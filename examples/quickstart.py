"""The question, answered: two speakers in one text, rewarded differently, judged when the whole text is there.

python examples/quickstart.py
"""

import gymnasium as gym

import textgym
from textgym import Span


def judge(episodes):
    """Reward the larger number, penalise the smaller; the two rewards always add up to 0."""
    rewards = []
    for episode in episodes:
        first, _, second = episode.text.partition(",")
        win = (first > second) - (first < second)
        rewards.append([Span(0, 1, +win, stream=0), Span(2, 3, -win, stream=1)] if len(episode.text) == 3 else -1.0)
    return rewards


def main() -> None:
    digits = textgym.symbol_tokenizer([*"0123456789", ","])
    env = gym.make("TextGen-v0", prompts=[""], tokenizer=digits, reward_fn=judge, max_new_tokens=4)
    env.reset(seed=0)
    for token in digits.encode("7,3"):
        _, reward, _, _, _ = env.step(int(token))
        print(f"{digits.piece(token)!r} pays {reward}")  # 0.0, until the text is finished
    _, reward, _, _, info = env.step(digits.eos_token_id)
    release = textgym.release(info)
    assert release is not None
    print(f"end: sum {reward}, per token {release.token_rewards.tolist()}, streams {release.streams.tolist()}")


if __name__ == "__main__":
    main()

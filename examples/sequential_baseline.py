"""What cannot be learned when each part is scored before the next one is written: the number duel, both ways.

In the workaround of 2022 A's number is written, scored and appended to the prompt, and then B's is. When A is scored there is
no B, so A's number earns nothing; B's is judged against A's as ever. Retroactive token rewards judge both when both are there.

    python examples/sequential_baseline.py
    python examples/sequential_baseline.py --quick
"""

import sys

from textgym_agents.train import TrainConfig, train

from textgym.tasks.number_duel import NumberDuel
from textgym.tasks.sequential import Sequential

DUEL = NumberDuel()


def score_part(episode):
    """Judge a part of a duel by what is there: the prompt holds the parts before it, nothing holds the ones after."""
    part, text = episode.prompt.metadata["part"], episode.text
    if part == 0:
        well_formed = len(text) == 6 and text.startswith("A: ") and text[3:5].isdigit() and text.endswith("\n")
        return 0.0 if well_formed else -2.0
    if part == 1:
        if not (len(text) == 6 and text.startswith("B: ") and set(text[3:5]) <= set("abcdefghij") and text.endswith("\n")):
            return -2.0
        said = episode.prompt.text[3:5]
        first = int(said) if said.isdigit() else -1
        second = int("".join(str("abcdefghij".index(letter)) for letter in text[3:5]))
        return float(second > first) - float(second < first)
    return 0.0 if (text, episode.ended_by) == ("", "eos") else -2.0


def main() -> None:
    short = {"updates": 2, "warmup_steps": 60, "eval_episodes": 256} if "--quick" in sys.argv else {}
    workaround = Sequential(DUEL, lambda parts: [score_part(part) for part in parts], ends=("\n",))
    print("| mean of the numbers after training | A, written first | B, written second |\n|---|---|---|")
    for name, task in (("part after part", workaround), ("token rewards after the end", DUEL)):
        run = train(TrainConfig(task=task, **short))
        print(f"| {name} | {run.after['first']:.1f} | {run.after['second']:.1f} |")


if __name__ == "__main__":
    main()

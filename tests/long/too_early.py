"""PPO where all of a text's reward is booked one token too early: erased by reward-to-go, repaired by either remedy.

python tests/long/too_early.py
"""

import sys
import tempfile
import warnings
from pathlib import Path

from textgym_agents import PPOConfig
from textgym_agents.train import TrainConfig, train

from textgym.credit import KeepLast
from textgym.tasks.credit_probes import ProbeReply

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from test_exact import OneTooEarly

RUNS = {
    "own rewards": (None, "reward_to_go"),
    "one token too early": (OneTooEarly(), "reward_to_go"),
    "the same, whole-stream returns": (OneTooEarly(), "whole_stream"),
    "the same, half kept on the last token": (KeepLast(OneTooEarly(), 0.5), "reward_to_go"),
}


def main() -> None:
    print("| rewards | warned | success before | after 20 updates of 128 |\n|---|---|---|---|")
    for name, (assigner, credit) in RUNS.items():
        task = ProbeReply()
        task.assigner = assigner
        ppo = PPOConfig(episodes_per_update=128, credit=credit)
        options = {"updates": 20, "warmup_steps": 60, "eval_episodes": 512, "num_slots": 128}
        with warnings.catch_warnings(record=True) as said, tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("always")
            run = train(TrainConfig(task=task, out=Path(folder) / "run", ppo=ppo, **options))
        before, after = run.before["success"], run.after["success"]
        print(f"| {name} | {'yes' if said else 'no'} | {before:.2f} | {after:.2f} |", flush=True)


if __name__ == "__main__":
    main()

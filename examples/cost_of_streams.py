"""What do per-token rewards with streams cost? Seconds per update beside a single scalar reward, in one run.

Two agents that differ in nothing but the form of the reward learn in turns, one update each, so that whatever else the
machine does falls on both.

    python examples/cost_of_streams.py
    python examples/cost_of_streams.py --quick
"""

import statistics
import sys
import time

from gymnasium.vector import AutoresetMode
from textgym_agents import PPO
from textgym_agents.train import Reporter, TrainConfig, build_policy, build_task, warm_up_policy

from textgym import TextGenVectorEnv


def main() -> None:
    quick = "--quick" in sys.argv
    updates = 2 if quick else 40
    agents, seconds = {}, {"scalar": [], "tokens": []}
    for rewards in seconds:
        config = TrainConfig(rewards=rewards, streams=rewards == "tokens", device="cpu", warmup_steps=30 if quick else 300)
        task = build_task(config)
        policy = build_policy(config, task, "cpu")
        warm_up_policy(config, task, policy, Reporter())
        envs = TextGenVectorEnv(config.num_slots, task, autoreset_mode=AutoresetMode.DISABLED, output="torch")
        envs.reset(seed=0)
        agents[rewards] = PPO(policy, config.ppo), envs
    for update in range(updates + 1):
        for rewards in sorted(seconds, reverse=update % 2 == 1):
            agent, envs = agents[rewards]
            start = time.perf_counter()
            agent.update(envs)
            if update:  # the first one warms the machine up
                seconds[rewards].append(time.perf_counter() - start)
    scalar, tokens = (statistics.median(seconds[rewards]) for rewards in ("scalar", "tokens"))
    ratio = statistics.median(b / a for a, b in zip(seconds["scalar"], seconds["tokens"], strict=True))
    print(f"seconds per update, median of {updates}: scalar {scalar:.3f}, tokens and streams {tokens:.3f}")
    print(f"tokens and streams against scalar: {100 * (ratio - 1):+.1f} %")


if __name__ == "__main__":
    main()

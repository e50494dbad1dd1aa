"""Play episodes and judge them as the task does.

Left out on purpose: a second way to play. Evaluation goes through the same environment and the same ``collect`` as
training, so a reward function sees the same texts in both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gymnasium.vector import AutoresetMode

from textgym import Episode, Release, Task, TextGenVectorEnv
from textgym_agents.collector import collect
from textgym_agents.rollout import Policy

JUDGED = frozenset({"score", "success", "return", "tokens"})
"""Names of the figures that ``judge`` gives of every task."""


def play(task: Task, policy: Policy, *, episodes: int, num_slots: int, seed: int, device: str) -> list[tuple[Episode, Release]]:
    """Play ``episodes`` episodes with ``policy``, without learning. Returns each with its release, ordered by number."""
    envs = TextGenVectorEnv(
        min(num_slots, episodes),
        task,
        autoreset_mode=AutoresetMode.DISABLED,
        output="torch",
        device=device,
        keep_episodes=True,
        infos="objects",
    )
    envs.reset(seed=seed)
    collect(envs, policy, episodes)
    return sorted(envs.take_episodes(), key=lambda played: played[1].episode_id)  # not by who ended first: short texts do


def judge(task: Task, played: Sequence[tuple[Episode, Release]]) -> dict[str, float]:
    """Give the figures of played episodes: score, success, return, tokens, and the task's own metrics.

    Raises:
        ValueError: a metric of the task has the name of another figure.
    """
    episodes = [episode for episode, _ in played]
    count = len(played)
    figures = {
        "score": float(task.score(episodes)),
        "success": sum(release.is_success for _, release in played) / count,
        "return": sum(float(release.token_rewards.sum()) for _, release in played) / count,
        "tokens": sum(release.num_tokens for _, release in played) / count,
    }
    metrics = {name: float(value) for name, value in task.metrics(episodes).items()}
    refuse_clash(metrics, figures)
    return figures | metrics


def refuse_clash(metrics: Iterable[str], figures: Iterable[str]) -> None:
    """Raise ValueError where a metric of the task has the name of one of ``figures``, which it would hide."""
    if clash := sorted({*metrics} & {*figures}):
        raise ValueError(f"the task's metrics have names that other figures of a run have: {', '.join(clash)}; rename them")

"""Rewards of every kind, and steps of environments with reward workers, played the same however fast a worker is."""

import threading

from textgym import Span


def step_ahead(envs, actions):
    """Step while no reward is given, so that no release of a text that ends here comes in this same step."""
    pool, over = envs.unwrapped._late._pool, threading.Event()
    reward = pool._reward

    def held(episodes, slots):
        over.wait()
        return reward(episodes, slots)

    pool._reward = held
    try:
        return envs.step(actions)
    finally:
        pool._reward = reward
        over.set()


def judge(episodes):
    """Rewards of every kind, most of them larger than 1; "h" is a text that cannot be judged."""
    out = []
    for episode in episodes:
        if "h" in episode.text:
            raise ZeroDivisionError("h")
        kind = len(episode.ids) % 4
        if kind == 0 and episode.text:
            out.append([Span(0, len(episode.text), 2.5, stream=1)])
        elif kind == 1:
            out.append([float(i * bool(agent)) / 2 for i, agent in enumerate(episode.agent_mask)])
        elif kind == 2:
            out.append({"length": float(len(episode.ids)), "a": -float(episode.text.count("a"))})
        else:
            out.append(-3.0)
    return out

"""Steps of environments with reward workers, played the same however fast a worker is."""

import threading


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

"""PPO of tianshou with token rewards: a hook of its collector lays them where the tokens stand."""

import sys
from functools import partial

import gymnasium as gym
import torch
from textgym_agents.integrations.perceptron import perceptron
from tianshou.algorithm import PPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from torch import nn

import textgym  # noqa: F401 (registers the ids)
from textgym.integrations.tianshou import PerStream, TokenRewards


class StreamPPO(PerStream, PPO):
    """PPO whose returns stay inside streams."""


class Actor(nn.Module):  # tianshou's hand a state on beside the logits
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, obs, state=None, info=None):
        return self.net(obs), state


@torch.random.fork_rng()
def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    torch.manual_seed(seed)
    gamma = 0.0 if rewards == "tokens" else 1.0  # a right symbol is its own token's doing: nothing need flow back
    make = partial(gym.make, "textgym/Copying-v0", length=8, alphabet=4)
    env = make()
    size, (length,) = int(env.action_space.n), env.observation_space.shape
    policy = DiscreteActorPolicy(actor=Actor(perceptron(length, size, size)), action_space=env.action_space)
    parts = {"policy": policy, "critic": perceptron(length, size, 1), "optim": AdamOptimizerFactory(lr=2.5e-3)}
    algorithm = (StreamPPO if rewards == "tokens" else PPO)(**parts, gamma=gamma, ent_coef=0.01, max_grad_norm=0.5)
    hook, buffer = TokenRewards() if rewards == "tokens" else None, VectorReplayBuffer(20_000, 8)
    collector = Collector(policy, DummyVectorEnv([make] * 8), buffer, on_episode_done_hook=hook)
    collector.reset(gym_reset_kwargs={"seed": seed})
    curve, played = [], 0
    while played < tokens:
        stats = collector.collect(n_episode=256)
        with policy_within_training_step(policy):
            algorithm.update(collector.buffer, batch_size=256, repeat=4)
        collector.reset_buffer()
        played += stats.n_collected_steps
        curve.append((played, float(stats.returns.mean())))
    return curve


if __name__ == "__main__":
    for form in ("sum", "tokens"):
        print(form, learn(form, tokens=4096 if "--quick" in sys.argv else 61_440, seed=0)[-1])

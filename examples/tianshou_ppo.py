"""PPO of tianshou with token rewards: a hook of its collector lays them where the tokens stand."""

import sys
from functools import partial

import gymnasium as gym
import torch
from tianshou.algorithm import PPO
from tianshou.algorithm.algorithm_base import policy_within_training_step
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv
from torch import nn

import textgym  # noqa: F401 (registers the ids)
from textgym.integrations.tianshou import PerStream, TokenRewards

SLOTS, EPISODES = 8, 256


class StreamPPO(PerStream, PPO):
    """PPO whose returns stay inside streams."""


class Net(nn.Module):
    """Tokens as one-hot vectors into a perceptron; tianshou's actors also hand a state on."""

    def __init__(self, length, size, outputs, actor=False):
        super().__init__()
        self.size, self.actor = size, actor
        stem = nn.Linear(length * (size + 1), 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
        self.layers = nn.Sequential(*stem, nn.Linear(128, outputs))

    def forward(self, obs, state=None, info=None):
        out = self.layers(nn.functional.one_hot(torch.as_tensor(obs) + 1, self.size + 1).flatten(1).float())
        return (out, state) if self.actor else out


@torch.random.fork_rng()
def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    torch.manual_seed(seed)
    make = partial(gym.make, "textgym/Copying-v0", length=8, alphabet=4)
    envs, env = DummyVectorEnv([make] * SLOTS), make()
    size, (length,) = int(env.action_space.n), env.observation_space.shape
    policy = DiscreteActorPolicy(actor=Net(length, size, size, actor=True), action_space=env.action_space)
    parts = {"policy": policy, "critic": Net(length, size, 1), "optim": AdamOptimizerFactory(lr=2.5e-3)}
    algorithm = (StreamPPO if rewards == "tokens" else PPO)(**parts, gamma=0.9, ent_coef=0.01, max_grad_norm=0.5)
    hook = TokenRewards() if rewards == "tokens" else None
    collector = Collector(policy, envs, VectorReplayBuffer(20_000, SLOTS), on_episode_done_hook=hook)
    collector.reset(gym_reset_kwargs={"seed": seed})
    curve, played = [], 0
    while played < tokens:
        stats = collector.collect(n_episode=EPISODES)
        with policy_within_training_step(policy):
            algorithm.update(collector.buffer, batch_size=256, repeat=4)
        collector.reset_buffer()
        played += stats.n_collected_steps
        curve.append((played, float(stats.returns.mean())))
    return curve


if __name__ == "__main__":
    for form in ("sum", "tokens"):
        print(form, learn(form, tokens=4096 if "--quick" in sys.argv else 61_440, seed=0)[-1])

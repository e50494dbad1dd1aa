"""PPO of TorchRL with token rewards: whole texts are made of what its collector hands out."""

import sys

import gymnasium as gym
import torch
from tensordict.nn import ProbabilisticTensorDictModule, ProbabilisticTensorDictSequential, TensorDictModule
from textgym_agents.integrations.perceptron import perceptron
from torch import nn
from torchrl.collectors import Collector
from torchrl.modules import ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import textgym  # noqa: F401 (registers the ids)
from textgym.integrations.torchrl import TokenRewards, wrap

SLOTS, STEPS = 16, 64


@torch.random.fork_rng()
def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    torch.manual_seed(seed)
    gamma = 0.0 if rewards == "tokens" else 1.0  # a right symbol is its own token's doing: nothing need flow back
    envs = gym.make_vec("textgym/Copying-v0", num_envs=SLOTS, autoreset_mode="Disabled", length=8, alphabet=4)
    env, size, (length,) = wrap(envs), int(envs.single_action_space.n), envs.single_observation_space.shape
    env.set_seed(seed)
    logits = TensorDictModule(perceptron(length, size, size), in_keys=["observation"], out_keys=["logits"])
    sample = ProbabilisticTensorDictModule(
        in_keys=["logits"], out_keys=["action"], distribution_class=torch.distributions.Categorical, return_log_prob=True
    )
    actor, critic = ProbabilisticTensorDictSequential(logits, sample), ValueOperator(perceptron(length, size, 1))
    advantage = GAE(gamma=gamma, lmbda=0.95, value_network=critic)
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01, critic_coeff=0.25, loss_critic_type="l2", normalize_advantage=True)
    optimizer = torch.optim.Adam(loss.parameters(), lr=2.5e-3)
    place, curve, played = TokenRewards(), [], 0
    for batch in Collector(
        env, actor, frames_per_batch=SLOTS * STEPS, total_frames=tokens, auto_register_policy_transforms=False
    ):
        played += batch.numel()
        curve.append((played, float(batch["next", "reward"][batch["next", "done"]].mean())))
        if rewards == "tokens":
            batch = place(batch)
        advantage(batch)
        for rows in (rows for _ in range(4) for rows in torch.randperm(batch.numel()).chunk(4)):
            losses = loss(batch.flatten()[rows])
            optimizer.zero_grad()
            sum(value for key, value in losses.items() if key.startswith("loss_")).backward()
            nn.utils.clip_grad_norm_(loss.parameters(), 0.5)
            optimizer.step()
    return curve


if __name__ == "__main__":
    for form in ("sum", "tokens"):
        print(form, learn(form, tokens=4096 if "--quick" in sys.argv else 61_440, seed=0)[-1])

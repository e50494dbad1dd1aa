"""An agent of your own, in 40 lines: REINFORCE with a baseline per stream, through the vector environment.

python examples/reinforce.py
python examples/reinforce.py --quick
textgym train --agent reinforce:Reinforce          # the same from the command line, in this folder
"""

import sys

import gymnasium as gym
import torch
from gymnasium.vector import AutoresetMode
from textgym_agents import ActorCritic, CausalLMPolicy, collect, stream_gae, tiny_gpt2, warm_up
from textgym_agents.evaluate import judge


class Reinforce:
    """Plays, weights each token's log-probability with its stream's reward-to-go, steps."""

    def __init__(self, policy, seed=0, episodes=64, learning_rate=3e-4):
        self.policy, self.episodes = policy, episodes
        self.optimizer = torch.optim.Adam(policy.model.lm.parameters(), lr=learning_rate)

    def learn(self, envs, budget, callback=None):
        for done in range(self.episodes, budget + 1, self.episodes):
            rollout = collect(envs, self.policy, self.episodes)
            mask, streams, zero = rollout.agent_mask, rollout.streams, torch.zeros_like(rollout.values)
            returns, _ = stream_gae(rollout.token_rewards, zero, streams, mask, zero[:, 0], rollout.truncated)
            for stream in streams[mask].unique():
                returns[streams == stream] -= returns[streams == stream].mean()
            logprobs, _, _ = self.policy.evaluate(rollout.ids, rollout.prompt_lengths, mask)
            loss = -(logprobs * returns)[mask].mean()
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.policy.model.lm.parameters(), 1.0)
            self.optimizer.step()
            if callback is not None:
                callback({"episodes": done, "return": float(rollout.token_rewards.sum(1).mean())})

    def save(self, folder):
        self.policy.model.save(folder)

    def load(self, folder):
        self.policy.model.load(folder)


def main() -> None:
    quick = "--quick" in sys.argv
    envs = gym.make_vec(
        "textgym:TextGen-v0", num_envs=64, output="torch", autoreset_mode=AutoresetMode.DISABLED, keep_episodes=True
    )
    task, tokenizer = envs.unwrapped.rules.task, envs.unwrapped.rules.tokenizer
    length = envs.single_observation_space.shape[0]
    model = ActorCritic(tiny_gpt2(len(tokenizer), length), tokenizer, length)
    warm_up(model, task, steps=60 if quick else 300)
    envs.reset(seed=0)

    def report(figures):
        if figures["episodes"] % (128 if quick else 2560) == 0:
            played = judge(task, envs.take_episodes())
            print({name: round(played[name], 2) for name in ("first", "second", "well_formed")}, flush=True)

    Reinforce(CausalLMPolicy(model, 64)).learn(envs, 256 if quick else 20480, report)


if __name__ == "__main__":
    main()

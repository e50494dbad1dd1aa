"""PPO in one file with CleanRL's contract; the five numbered lines are what token rewards need."""

import sys

import gymnasium as gym
import torch
from torch import nn

import textgym
from textgym.integrations.cleanrl import FinishedEpisodes  # 1

STEPS, SLOTS, MINIBATCHES, EPOCHS, GAMMA, LAMBDA = 128, 8, 4, 4, 0.9, 0.95


@torch.random.fork_rng()
def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    torch.manual_seed(seed)
    envs = gym.vector.SyncVectorEnv(
        [lambda: gym.wrappers.RecordEpisodeStatistics(gym.make("textgym/Copying-v0", length=8, alphabet=4))] * SLOTS
    )
    size, (length,) = int(envs.single_action_space.n), envs.single_observation_space.shape
    stem = nn.Linear(length * (size + 1), 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
    net = nn.Sequential(*stem, nn.Linear(128, size + 1))  # logits and value
    optimizer = torch.optim.Adam(net.parameters(), lr=2.5e-3, eps=1e-5)

    def act(obs):
        out = net(nn.functional.one_hot(obs + 1, size + 1).flatten(1).float())
        return torch.distributions.Categorical(logits=out[:, 1:]), out[:, 0]

    episodes = FinishedEpisodes(envs, GAMMA, LAMBDA)  # 2
    obs, done, curve = torch.as_tensor(envs.reset(seed=seed)[0]), torch.zeros(SLOTS), []
    for played in range(STEPS * SLOTS, tokens + 1, STEPS * SLOTS):
        rows, scores = [], []
        for _ in range(STEPS):
            with torch.no_grad():
                dist, value = act(obs)
            action = dist.sample()
            after, paid, terminated, truncated, infos = envs.step(action.numpy())
            rows.append((obs, action, dist.log_prob(action), value, done, torch.as_tensor(paid).float()))
            episodes.add(obs, action, rows[-1][2], value, infos)  # 3
            obs, done = torch.as_tensor(after), torch.as_tensor(terminated | truncated).float()
            scores += [release.token_rewards.sum() for release in textgym.releases(infos)]
        b_obs, b_actions, b_logprobs, b_values, dones, paid = map(torch.stack, zip(*rows, strict=True))
        b_advantages, last, next_value, going = torch.zeros_like(paid), 0.0, act(obs)[1].detach(), 1 - done
        for t in reversed(range(STEPS)):
            last = paid[t] - b_values[t] + GAMMA * going * (next_value + LAMBDA * last)
            b_advantages[t], next_value, going = last, b_values[t], 1 - dones[t]
        batch = [b.flatten(0, 1) for b in (b_obs, b_actions, b_logprobs, b_advantages, b_advantages + b_values)]
        if rewards == "tokens":
            batch = [torch.as_tensor(column) for column in episodes.batch()[:5]]  # 4
        minibatch = -(-len(batch[0]) // MINIBATCHES)  # 5
        for rows in (rows for _ in range(EPOCHS) for rows in torch.randperm(len(batch[0])).split(minibatch)):
            x, actions, logprobs, advantages, returns = (column[rows] for column in batch)
            dist, value = act(x)
            ratio, scaled = (dist.log_prob(actions) - logprobs).exp(), (advantages - advantages.mean()) / advantages.std()
            loss = -torch.min(ratio * scaled, ratio.clamp(0.8, 1.2) * scaled).mean() - 0.01 * dist.entropy().mean()
            (loss + 0.25 * (value - returns).square().mean()).backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        curve.append((played, float(sum(scores) / len(scores))))
    return curve


if __name__ == "__main__":
    for form in ("sum", "tokens"):
        print(form, learn(form, tokens=4096 if "--quick" in sys.argv else 61_440, seed=0)[-1])

"""PPO in one file with CleanRL's contract; the five numbered lines are what token rewards need."""

import sys

import gymnasium as gym
import torch
from textgym_agents.integrations.perceptron import perceptron

import textgym
from textgym.integrations.cleanrl import FinishedEpisodes  # 1


@torch.random.fork_rng()
def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    torch.manual_seed(seed)
    num_steps, slots, minibatches, epochs, gae_lambda = 128, 8, 4, 4, 0.95
    gamma = 0.0 if rewards == "tokens" else 1.0  # a right symbol is its own token's doing: nothing need flow back
    envs = gym.vector.SyncVectorEnv([lambda: gym.make("textgym/Copying-v0", length=8, alphabet=4)] * slots)
    size, (length,) = int(envs.single_action_space.n), envs.single_observation_space.shape
    net = perceptron(length, size, 1 + size)  # value and logits
    optimizer = torch.optim.Adam(net.parameters(), lr=2.5e-3, eps=1e-5)

    def act(obs):
        value, logits = net(obs).split((1, size), -1)
        return torch.distributions.Categorical(logits=logits), value[:, 0]

    episodes, curve = FinishedEpisodes(envs, gamma, gae_lambda), []  # 2
    obs, done = torch.as_tensor(envs.reset(seed=seed)[0]), torch.zeros(slots)
    for played in range(num_steps * slots, tokens + 1, num_steps * slots):
        rows, scores = [], []
        for _ in range(num_steps):
            dist, value = act(obs)
            action = dist.sample()
            after, paid, terminated, truncated, infos = envs.step(action.numpy())
            rows.append((obs, action, dist.log_prob(action).detach(), value.detach(), done, torch.as_tensor(paid).float()))
            episodes.add(*rows[-1][:4], infos)  # 3
            obs, done = torch.as_tensor(after), torch.as_tensor(terminated | truncated).float()
            scores += [release.token_rewards.sum() for release in textgym.releases(infos)]
        b_obs, b_actions, b_logprobs, b_values, dones, paid = map(torch.stack, zip(*rows, strict=True))
        b_advantages, last, next_value, going = torch.zeros_like(paid), 0.0, act(obs)[1].detach(), 1 - done
        for t in reversed(range(num_steps)):
            last = paid[t] - b_values[t] + gamma * going * (next_value + gae_lambda * last)
            b_advantages[t], next_value, going = last, b_values[t], 1 - dones[t]
        batch = [b.flatten(0, 1) for b in (b_obs, b_actions, b_logprobs, b_advantages, b_advantages + b_values)]
        batch = [torch.as_tensor(column) for column in episodes.batch()[:5]] if rewards == "tokens" else batch  # 4
        for rows in (rows for _ in range(epochs) for rows in torch.randperm(len(batch[0])).chunk(minibatches)):  # 5
            x, actions, logprobs, advantages, returns = (column[rows] for column in batch)
            dist, value = act(x)
            ratio, scaled = (dist.log_prob(actions) - logprobs).exp(), (advantages - advantages.mean()) / advantages.std()
            loss = -torch.min(ratio * scaled, ratio.clamp(0.8, 1.2) * scaled).mean() - 0.01 * dist.entropy().mean()
            optimizer.zero_grad()
            (loss + 0.25 * (value - returns).square().mean()).backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimizer.step()
        curve.append((played, float(sum(scores) / len(scores))))
    return curve


if __name__ == "__main__":
    print([(form, learn(form, 4096 if "--quick" in sys.argv else 61_440, seed=0)[-1]) for form in ("sum", "tokens")])

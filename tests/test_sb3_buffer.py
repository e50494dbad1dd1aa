import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from textgym import Release
from textgym.integrations.sb3_buffer import TokenRewardBuffer
from textgym.ledger import Ledger


def make(n_steps, slots, **kwargs):
    space = gym.spaces.Box(-1, 10**6, (1,), np.int64)
    return TokenRewardBuffer(n_steps, space, gym.spaces.Discrete(10**6), device="cpu", n_envs=slots, **{"gamma": 1.0, **kwargs})


def finished(rewards, streams, agent_mask=None, slot=0):
    mask = np.ones(len(rewards), np.bool_) if agent_mask is None else np.array(agent_mask)
    rewards = np.array(rewards, np.float32)
    return Release(0, slot, rewards, np.array(streams), mask, len(rewards), True, False, False, 0, {}, Ledger())


class World:
    """Texts of random lengths whose every step has a number of its own; plays what SB3 does in ``collect_rollouts``."""

    def __init__(self, slots, longest, kinds, rng):
        self.slots, self.longest, self.kinds, self.rng = slots, longest, kinds, rng
        self.made, self.texts, self.starts = 0, [], np.ones(slots)
        self.open = [self.new() for _ in range(slots)]

    def new(self):
        n = int(self.rng.integers(1, self.longest + 1))
        mask = np.ones(n, np.bool_)
        mask[:-1] = self.rng.random(n - 1) < 0.8  # the environment wrote some
        rewards = np.round(self.rng.normal(size=n), 3) * mask
        return {"mask": mask, "rewards": rewards, "streams": self.rng.integers(self.kinds, size=n), "steps": [], "values": []}

    def step(self, buffer, gamma):
        numbers = np.arange(self.made, self.made + self.slots)
        self.made += self.slots
        values = self.rng.normal(size=self.slots).astype(np.float32)
        paid, dones, releases, bootstrap = np.zeros(self.slots, np.float32), np.zeros(self.slots), {}, np.zeros(self.slots)
        for slot, text in enumerate(self.open):
            text["steps"].append(numbers[slot])
            text["values"].append(values[slot])
            if len(text["steps"]) == text["mask"].sum():
                releases[slot] = finished(text["rewards"], text["streams"], text["mask"], slot)
                paid[slot] = releases[slot].token_rewards.sum()
                dones[slot] = 1
                if self.rng.random() < 0.5:
                    bootstrap[slot] = gamma * self.rng.normal()
                text["bootstrap"] = bootstrap[slot]
                self.texts.append(text)
                self.open[slot] = self.new()
        buffer.announce(paid, releases)
        buffer.add(
            numbers[:, None],
            numbers,
            paid + bootstrap,
            self.starts,
            torch.from_numpy(values)[:, None],
            -torch.from_numpy(values),
        )
        self.starts = dones


def advantages_of(text, gamma, gae_lambda):
    """Straight from the definition: the discounted sum of later deltas of the stream."""
    rewards, streams = text["rewards"][text["mask"]].copy(), text["streams"][text["mask"]]
    rewards[-1] += text["bootstrap"]
    found = np.zeros(len(rewards))
    for stream in set(streams.tolist()):
        at = np.flatnonzero(streams == stream)
        v = np.append(np.array(text["values"])[at], 0.0)
        deltas = rewards[at] + gamma * v[1:] - v[:-1]
        found[at] = [sum((gamma * gae_lambda) ** (j - i) * deltas[j] for j in range(i, len(at))) for i in range(len(at))]
    return found


@settings(max_examples=60)
@given(
    slots=st.integers(1, 5),
    n_steps=st.integers(1, 9),
    longest=st.integers(1, 30),
    kinds=st.integers(1, 3),
    factors=st.sampled_from([(1.0, 1.0), (0.9, 0.8)]),
    batch_size=st.sampled_from([None, 3, 8, 64]),
    whole_texts=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_every_token_is_learned_from_exactly_once_with_its_own_advantage(
    slots, n_steps, longest, kinds, factors, batch_size, whole_texts, seed
):
    gamma, gae_lambda = factors
    world = World(slots, longest, kinds, np.random.default_rng(seed))
    buffer = make(n_steps, slots, gamma=gamma, gae_lambda=gae_lambda, whole_texts=whole_texts)
    learned, paid = {}, 0.0
    for _ in range(12):
        buffer.reset()
        for _ in range(n_steps):
            world.step(buffer, gamma)
        buffer.compute_returns_and_advantage(torch.zeros(slots), np.zeros(slots))
        buffer.check_ledger()
        batches = list(buffer.get(batch_size))
        for batch in batches:
            np.testing.assert_allclose(batch.returns, batch.advantages + batch.old_values, atol=1e-6)
            np.testing.assert_array_equal(batch.old_values, -batch.old_log_prob)
            np.testing.assert_array_equal(batch.actions[:, 0], batch.observations[:, 0])
        if buffer.is_neutral:
            assert len(batches) == 1 and len(batches[0].actions) == 2 and not batches[0].advantages.any()
            continue
        paid += buffer.rewards.sum()
        numbers = torch.cat([batch.actions[:, 0] for batch in batches]).int().tolist()
        assert len(set(numbers)) == len(numbers) and not set(numbers) & learned.keys()
        learned |= dict(zip(numbers, torch.cat([batch.advantages for batch in batches]).tolist(), strict=True))
        if not whole_texts and batch_size is not None:
            assert [len(b.actions) for b in batches[:-1]] == [batch_size] * (len(batches) - 1)
        if whole_texts:
            for text in world.texts:
                assert sum(bool({*text["steps"]} & {*b.actions[:, 0].int().tolist()}) for b in batches) <= 1
    over = [text for text in world.texts if text["steps"][0] in learned]
    expected = {n: a for text in over for n, a in zip(text["steps"], advantages_of(text, gamma, gae_lambda), strict=True)}
    assert learned.keys() == expected.keys()
    assert all(abs(learned[n] - expected[n]) < 1e-4 for n in learned)
    total = sum(text["rewards"].sum() + text["bootstrap"] for text in over)
    assert paid == pytest.approx(total, abs=1e-4)
    assert buffer.tokens_learned == len(learned)
    assert buffer.tokens_learned + buffer.tokens_held == world.made
    waiting = [text for text in world.texts if text["steps"][0] not in learned]
    assert sum(len(text["steps"]) for text in waiting) <= 1  # a single step waits for company


def one(buffer, number, start=0.0, paid=0.0, reward=None, release=None):
    buffer.announce(np.array([paid]), {} if release is None else {0: release})
    reward = paid if reward is None else reward
    buffer.add(np.array([[number]]), np.array([number]), np.array([reward]), np.array([start]), torch.zeros(1), torch.zeros(1))


def gathered(buffer):
    buffer.compute_returns_and_advantage(torch.zeros(1), np.zeros(1))
    return buffer.actions[:, 0].tolist(), buffer.rewards.tolist(), buffer.advantages.tolist()


def test_rewards_land_where_their_tokens_are_a_rollout_later():
    buffer = make(2, 1)
    one(buffer, 10, start=1.0)
    one(buffer, 11)
    assert gathered(buffer) == ([11, 10], [0.0, 0.0], [0.0, 0.0]) and buffer.is_neutral
    buffer.reset()
    one(buffer, 12)
    one(buffer, 13, paid=1.5, release=finished([0.5, 0, 2, -1], [0, 0, 1, 1]))
    assert gathered(buffer) == ([10, 11, 12, 13], [0.5, 0.0, 2.0, -1.0], [0.5, 0.0, 1.0, -1.0])


def test_the_bootstrap_reaches_only_the_stream_of_the_last_token():
    """SB3 added .25 to what the environment paid."""
    buffer = make(4, 1)
    for number in range(3):
        one(buffer, number, start=number == 0)
    one(buffer, 3, paid=3.0, reward=3.25, release=finished([1, 0, 2, 0], [0, 1, 0, 1]))
    assert gathered(buffer) == ([0, 1, 2, 3], [1.0, 0.0, 2.0, 0.25], [3.0, 0.25, 2.0, 0.25])
    assert buffer.ledger.asked == 3.0 and buffer.ledger.accounts["bootstrap"] == -0.25 and buffer.paid == 3.25


def test_a_single_step_waits_for_the_next_rollout():
    """The standard deviation of one advantage is NaN."""
    buffer = make(1, 1)
    one(buffer, 5, start=1.0, paid=2.0, release=finished([2], [0]))
    gathered(buffer)
    assert buffer.is_neutral and buffer.tokens_held == 1 and buffer.paid == 0
    buffer.reset()
    one(buffer, 6, start=1.0, paid=3.0, release=finished([3], [0]))
    assert gathered(buffer) == ([5, 6], [2.0, 3.0], [2.0, 3.0])
    assert buffer.tokens_held == 0


def test_texts_given_up_by_a_reset_are_counted_and_not_learned_from():
    buffer = make(3, 1)
    one(buffer, 0, start=1.0)
    one(buffer, 1)
    one(buffer, 2, start=1.0)  # nothing was released in between: the environment was reset
    buffer.reset()
    one(buffer, 3, paid=1.0, release=finished([0, 1], [0, 0]))
    assert gathered(buffer)[0] == [2, 3]
    assert (buffer.tokens_abandoned, buffer.tokens_learned, buffer.tokens_held) == (2, 2, 0)


def test_a_step_that_training_ended_on_is_booked_as_abandoned():
    buffer = make(3, 1)
    buffer.announce(np.array([2.0]), {0: finished([2], [0])})
    buffer.reset()
    assert buffer.ledger.accounts["abandoned"] == 2.0
    buffer.check_ledger()


def test_what_does_not_add_up_is_an_error():
    buffer = make(3, 1)
    with pytest.raises(RuntimeError, match="needs its callback"):
        buffer.add(np.array([[0]]), np.array([0]), np.zeros(1), np.ones(1), torch.zeros(1), torch.zeros(1))
    with pytest.raises(RuntimeError, match="not complete"):
        next(buffer.get())
    with pytest.raises(ValueError, match=r"slot 0 was paid 0\.5 but its released token rewards come to 0"):
        one(buffer, 0, paid=0.5)
    with pytest.raises(ValueError, match="was paid 1 but its released token rewards come to 3"):
        one(buffer, 0, paid=1.0, release=finished([3], [0]))
    with pytest.raises(ValueError, match="has 1 steps of the text that ended in slot 0, but 2 tokens"):
        one(buffer, 0, start=1.0, paid=3.0, release=finished([3, 0], [0, 0]))
    with pytest.raises(ValueError, match="observation='tokens'"):
        TokenRewardBuffer(3, gym.spaces.Dict({"a": gym.spaces.Discrete(2)}), gym.spaces.Discrete(2), device="cpu")
    buffer.paid += 1
    with pytest.raises(ValueError, match="does not add up"):
        buffer.check_ledger()

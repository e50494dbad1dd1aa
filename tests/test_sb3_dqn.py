"""DQN on token rewards: where the rewards lie in the ring, what follows a token, and what may be sampled."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN

import textgym
from textgym import Prompt, Task, symbol_tokenizer
from textgym.integrations.sb3_dqn import TokenReplayBuffer
from textgym.integrations.sb3_env import TextGenVecEnv

TOKENIZER = symbol_tokenizer([*"abcd"])
EOS = TOKENIZER.eos_token_id


class Alternating(Task):
    """Token i is paid i + 1; even tokens are stream 0, odd ones stream 1."""

    max_prompt_tokens, max_new_tokens, tokenizer = 1, 4, TOKENIZER

    def __init__(self, length_limit="terminate"):
        self.length_limit = length_limit

    def sample(self, rng):
        return Prompt("a")

    def rewards(self, episodes):
        return [np.arange(1.0, len(episode.ids) + 1) for episode in episodes]

    def streams(self, episodes):
        return [np.arange(len(episode.ids)) % 2 for episode in episodes]


class Played:
    """An environment and a buffer that sees what it does, as DQN stores it."""

    def __init__(self, rows, slots=1, task=None):
        self.env = TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=slots, task=task or Alternating()))
        space = self.env.observation_space, self.env.action_space
        self.buffer = TokenReplayBuffer(rows * slots, *space, n_envs=slots, device="cpu")
        self.obs = self.env.reset()

    def step(self, *actions):
        obs, rewards, dones, infos = self.env.step(np.array(actions))
        ends = obs.copy()
        for slot in np.flatnonzero(dones):
            ends[slot] = infos[slot]["terminal_observation"]
        self.buffer.add(self.obs, ends, np.array(actions), rewards, dones, infos)
        self.obs = obs
        return infos

    def text(self, row, slot=0, what="observations"):
        ids = getattr(self.buffer, what)[row, slot]
        return "".join(TOKENIZER.piece(i) for i in ids[ids >= 0])


def test_rewards_lie_on_their_tokens_and_the_successor_is_of_the_same_stream():
    played = Played(8)
    for token in TOKENIZER.encode("bcdb"):
        played.step(token)
    buffer = played.buffer
    assert buffer.rewards[:4, 0].tolist() == [1, 2, 3, 4]
    assert buffer.dones[:4, 0].tolist() == [0, 0, 1, 1]  # the last of stream 0, and of stream 1
    assert [played.text(row) for row in range(4)] == ["a", "ab", "abc", "abcd"]
    successors = [played.text(row, what="next_observations") for row in range(2)]
    assert successors == ["abc", "abcd"]  # before tokens 2 and 3, not 1 and 2


def test_a_step_is_sampled_once_its_text_is_released_and_no_earlier():
    played = Played(8, slots=2)
    played.step(3, 3)
    with pytest.raises(ValueError, match=r"no text has been released yet, and 2 steps wait; raise learning_starts"):
        played.buffer.sample(4)
    played.step(EOS, 3)
    assert played.buffer.tokens_held == 2
    samples = played.buffer.sample(200)
    assert set(samples.rewards.flatten().tolist()) == {1.0, 2.0}
    assert set(zip(samples.actions.flatten().tolist(), samples.dones.flatten().tolist(), strict=True)) == {(3, 1.0), (EOS, 1.0)}


def test_a_text_that_wraps_around_the_ring_is_paid_where_it_stands():
    played = Played(6)
    for token in TOKENIZER.encode("bcdbdcbd"):
        played.step(token)
    # Rows 4, 5, 0, 1 hold the second text; 2 and 3 still hold the first one's end.
    assert played.buffer.rewards[:, 0].tolist() == [3, 4, 3, 4, 1, 2]
    assert played.buffer.actions[:, 0, 0].tolist() == TOKENIZER.encode("bddbdc").tolist()
    assert played.buffer.dones[:, 0].tolist() == [1, 1, 1, 1, 0, 0]
    assert played.text(4, what="next_observations") == "adc"  # row 0's
    played.step(3)
    assert (~played.buffer._known[:, 0]).nonzero()[0].tolist() == [2]  # overwritten, and not released


def test_a_text_longer_than_the_ring_is_refused():
    played = Played(3)
    for token in TOKENIZER.encode("bcd"):
        played.step(token)
    with pytest.raises(ValueError, match="slot 0 has more than 3 steps, all rows of the buffer"):
        played.step(3)


def test_a_cut_text_goes_on_in_the_stream_of_its_last_token_alone():
    played = Played(8, task=Alternating("truncate"))
    for token in TOKENIZER.encode("bcdb"):
        played.step(token)
    buffer = played.buffer
    assert (buffer.dones * (1 - buffer.timeouts))[:4, 0].tolist() == [0, 0, 1, 0]
    assert played.text(3, what="next_observations") == "abcdb"


def test_texts_given_up_by_a_reset_are_never_sampled():
    played = Played(16)
    for token in TOKENIZER.encode("bc"):
        played.step(token)
    played.obs = played.env.reset()
    for token in TOKENIZER.encode("dcbd"):
        played.step(token)
    assert played.buffer.tokens_abandoned == 2 and played.buffer.tokens_held == 0
    assert played.buffer._known[:, 0].nonzero()[0].tolist() == [2, 3, 4, 5]
    assert played.buffer.rewards[2:6, 0].tolist() == [1, 2, 3, 4]


def test_what_was_paid_has_to_be_what_was_released():
    played = Played(8)
    obs, rewards, dones, infos = played.env.step(np.array([EOS]))
    with pytest.raises(ValueError, match="slot 0 was paid 2 but its released token rewards come to 1"):
        played.buffer.add(played.obs, obs, np.array([EOS]), rewards + 1, dones, infos)
    with pytest.raises(ValueError, match="slot 0 ended without a release"):
        Played(8).buffer.add(played.obs, obs, np.array([EOS]), rewards, dones, [{}])


def test_what_cannot_be_relabelled_is_refused():
    space = gym.spaces.Dict({"tokens": gym.spaces.Box(-1, 4, (5,), np.int64)}), gym.spaces.Discrete(5)
    with pytest.raises(ValueError, match="make the environment with observation='tokens'"):
        TokenReplayBuffer(8, *space)
    options = {"optimize_memory_usage": True, "handle_timeout_termination": False}
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        TokenReplayBuffer(8, space[0]["tokens"], space[1], **options)


@pytest.mark.parametrize("slots", [1, 3])
def test_every_reward_that_a_run_of_dqn_samples_is_one_that_its_token_earned(slots):
    env = TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=slots, task=Alternating()))
    options = {"replay_buffer_class": TokenReplayBuffer, "learning_starts": 12 * slots, "train_freq": 1, "seed": 0}
    model = DQN("MlpPolicy", env, buffer_size=20 * slots, policy_kwargs={"net_arch": [8]}, **options)
    model.learn(120 * slots)
    samples = model.replay_buffer.sample(256)
    before = (samples.observations >= 0).sum(1, keepdim=True)  # the prompt's token, and one per token written
    assert (samples.rewards == before).all()
    goes_on = samples.dones[:, 0] == 0
    after = (samples.next_observations >= 0).sum(1, keepdim=True)
    assert goes_on.any() and (after[goes_on] == before[goes_on] + 2).all()


def test_relabelled_rewards_are_conserved():
    played = Played(64, slots=4)
    rng = np.random.default_rng(0)
    released = 0.0
    for _ in range(40):
        infos = played.step(*rng.integers(1, len(TOKENIZER), size=4))
        ended = [textgym.release(info) for info in infos]
        released += sum(float(item.token_rewards.sum()) for item in ended if item is not None)
    assert played.buffer.rewards[played.buffer._known].sum() == pytest.approx(released)

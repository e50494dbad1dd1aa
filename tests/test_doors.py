"""All doors are one environment: single, Sync, Async and native, numpy and torch, over 10,000 random steps."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st
from test_vector import NUMBERS, same

import textgym
from textgym import PromptTask, Span, releases

STEPS = {mode: 0 for mode in AutoresetMode}
EXAMPLES, LENGTH = 12, 280


class Drawn(PromptTask):
    """A task as drawn: rewards of every kind, perhaps turns with replies of any length, stops, limits, endings."""

    def __init__(self, tokenizer, options, replies, ends_at, streams):
        super().__init__(["a", "bc", "def", "h."], tokenizer, self.judge, **options)
        self.replies = replies
        self.ends_at = ends_at
        if replies:
            self.reply = self.answer
        if ends_at:
            self.ended = lambda prompt, ids: len(ids) % ends_at == 0 and ids[-1] % 3 == 0
        if streams:
            self._streams_fn = lambda episodes: [np.arange(len(e.ids)) // 2 for e in episodes]
        self.named = not streams

    def answer(self, episode):
        turn = int(episode.turns.max())
        known = episode.text.count("a") + len(episode.ids)
        return None if turn >= 3 or known % 4 == 0 else self.replies[known % len(self.replies)]

    def judge(self, episodes):
        return [self.one(episode) for episode in episodes]

    def one(self, episode):
        kind = len(episode.ids) % 4
        first = next(iter(np.flatnonzero(episode.agent_mask & (episode.offsets[:, 1] > episode.offsets[:, 0]))), None)
        if kind == 0 and first is not None:
            start = int(episode.offsets[first, 0])
            return {"span": [Span(start, len(episode.text), 0.5, stream=1 if self.named else None)], "rest": -0.25}
        if kind == 1:
            return (episode.agent_mask * np.arange(len(episode.ids)) / 8).tolist()
        return {"length": float(len(episode.ids)), "none": []} if kind == 2 else -1.0


tasks = st.fixed_dictionaries(
    {
        "options": st.fixed_dictionaries(
            {
                "max_new_tokens": st.integers(1, 9),
                "length_limit": st.sampled_from(["terminate", "truncate"]),
                "stop": st.sampled_from([[], ["b."], ["ff", "g"]]),
                "weights": st.just({}),
            }
        ),
        "replies": st.sampled_from([[], ["b"], ["hh.", "b.", "aaaaaaa"]]),
        "ends_at": st.sampled_from([0, 0, 3]),
        "streams": st.booleans(),
    }
)
turn_options = st.fixed_dictionaries(
    {"turn_stop": st.sampled_from([[], ["."], ["b", "cd"]]), "max_turn_tokens": st.sampled_from([None, 1, 3])}
)


class Singles:
    """Single environments stepped one by one, with the resets that an autoreset mode asks for."""

    def __init__(self, make, num_envs, mode):
        self.envs = [make() for _ in range(num_envs)]
        self.mode = mode
        self.idle = np.zeros(num_envs, dtype=bool)

    def reset(self, seed):
        self.obs = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)])
        return self.obs.copy()

    def restart(self, mask):
        for i in np.flatnonzero(mask):
            self.obs[i] = self.envs[i].reset()[0]
            self.idle[i] = False
        return self.obs.copy()

    def step(self, actions):
        out = [(0.0, False, False, None)] * len(self.envs)
        for i, (env, action) in enumerate(zip(self.envs, actions.tolist(), strict=True)):
            if self.idle[i] and self.mode is AutoresetMode.NEXT_STEP:
                self.restart(np.arange(len(self.envs)) == i)
                continue
            self.obs[i], reward, terminated, truncated, info = env.step(action)
            out[i] = (reward, terminated, truncated, textgym.release(info))
            self.idle[i] = terminated or truncated
            if self.idle[i] and self.mode is AutoresetMode.SAME_STEP:
                self.restart(np.arange(len(self.envs)) == i)
        rewards, terminated, truncated, released = zip(*out, strict=True)
        return self.obs.copy(), np.array(rewards), np.array(terminated), np.array(truncated), released


def same_releases(expected, got, num_envs):
    assert [r.slot for r in got] == [slot for slot, r in enumerate(expected) if r is not None]
    for release in got:
        other = expected[release.slot]
        assert release.episode_id == release.slot + num_envs * other.episode_id
        for name in vars(release):
            if name not in ("slot", *NUMBERS):
                np.testing.assert_array_equal(getattr(release, name), getattr(other, name), err_msg=name)


@pytest.mark.parametrize("mode", list(AutoresetMode))
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_all_doors_are_equal_step_for_step(letters, mode, data):
    drawn, num_envs = data.draw(tasks), data.draw(st.integers(1, 4))
    if drawn["replies"]:
        drawn["options"] |= data.draw(turn_options) | {"max_response_tokens": drawn["options"]["max_new_tokens"] + 8}
    seed = data.draw(st.integers(0, 2**20))

    def make():
        return textgym.TextGenEnv(Drawn(letters, **drawn), info_text=True)

    options = {"autoreset_mode": mode}
    single = Singles(make, num_envs, mode)
    sync = SyncVectorEnv([make] * num_envs, **options)
    asyn = AsyncVectorEnv([make] * num_envs, **options)
    numpy_ = textgym.TextGenVectorEnv(num_envs, Drawn(letters, **drawn), info_text=True, **options)
    torch_ = textgym.TextGenVectorEnv(num_envs, Drawn(letters, **drawn), output="torch", **options)
    # A CPU that is named by its number has its tensors kept as any other device has.
    device_ = textgym.TextGenVectorEnv(num_envs, Drawn(letters, **drawn), output="torch", device="cpu:0", **options)
    obs = single.reset(seed)
    for envs in (sync, asyn, numpy_, torch_, device_):
        np.testing.assert_array_equal(obs, np.asarray(envs.reset(seed=seed)[0]))
    rng = np.random.default_rng(seed)
    for _ in range(LENGTH):
        actions = rng.integers(2, len(letters), size=num_envs)
        actions[rng.random(num_envs) < 0.15] = 1
        expected = single.step(actions)
        answers = [envs.step(actions) for envs in (sync, asyn, numpy_)]
        answers += [envs.step(torch.from_numpy(actions)) for envs in (torch_, device_)]
        for answer in answers:
            for one, other in zip(expected[:4], answer[:4], strict=True):
                np.testing.assert_array_equal(one, np.asarray(other))
        for answer in answers[2:]:
            same_releases(expected[4], releases(answer[4]), num_envs)
        same(answers[0][4], answers[1][4])
        same(answers[0][4], answers[2][4])
        STEPS[mode] += 1
        ended = expected[2] | expected[3]
        if mode is AutoresetMode.DISABLED and ended.any():
            obs = single.restart(ended)
            for envs in (sync, asyn, numpy_, torch_, device_):
                np.testing.assert_array_equal(obs, np.asarray(envs.reset(options={"reset_mask": ended.copy()})[0]))
    asyn.close()


def test_at_least_ten_thousand_steps_were_compared():
    """Runs after the others of this file; skipped where they ran in other processes."""
    if not all(STEPS.values()):
        pytest.skip("the steps were taken in other processes")
    assert sum(STEPS.values()) >= 10_000

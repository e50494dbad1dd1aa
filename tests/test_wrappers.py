"""Token rewards rewritten at their release: what is paid, what the ledger says, what is refused."""

import functools

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import Prompt
from textgym.tasks.guess_number import GuessNumber
from textgym.wrappers import Clip, Scale, TransformTokenRewards

EOS = 1
A = 2  # the first letter


def make(letters, rewards, **kwargs):
    """An environment whose texts have ``len(rewards)`` tokens and are paid ``rewards``."""
    return textgym.TextGenEnv(
        prompts=["a"],
        tokenizer=letters,
        reward_fn=lambda episodes: [rewards for _ in episodes],
        **{"max_new_tokens": 20, **kwargs},
    )


def play(env, count, seed=0):
    """Write a text of ``count`` tokens; return the rewards of all steps, the last info, and the release."""
    env.reset(seed=seed)
    paid, info = [], {}
    for step in range(count):
        _, reward, terminated, truncated, info = env.step(EOS if step == count - 1 else A)
        assert (terminated or truncated) == (step == count - 1)
        paid.append(reward)
    return paid, info, textgym.release(info)


def adds_up(release):
    paid = float(release.token_rewards.sum(dtype=np.float64))
    return release.ledger.asked == pytest.approx(paid + sum(release.ledger.accounts.values()), rel=1e-5, abs=1e-5)


def test_what_clipping_takes_stands_in_the_ledger_F12(letters):
    paid, info, release = play(TransformTokenRewards(make(letters, [1.0, 2.0, 3.0, 4.0, 5.0]), Clip(2)), 5)
    assert paid == [0.0, 0.0, 0.0, 0.0, 9.0]
    assert release.token_rewards.tolist() == [1, 2, 2, 2, 2]
    assert release.token_rewards.dtype == np.float32
    assert (release.ledger.asked, dict(release.ledger.accounts)) == (15.0, {"clip": 6.0})
    assert (info["ledger_asked"], info["ledger/clip"]) == (15.0, 6.0)


def test_penalties_are_clipped_too_and_give_a_negative_amount(letters):
    _, _, release = play(TransformTokenRewards(make(letters, [-3.0, 0.5, 0.0]), Clip(1)), 3)
    assert release.token_rewards.tolist() == [-1, 0.5, 0]
    assert dict(release.ledger.accounts) == {"clip": -2.0}


def test_scaling_books_the_difference(letters):
    paid, _, release = play(TransformTokenRewards(make(letters, [1.0, -2.0, 4.0]), Scale(0.5)), 3)
    assert release.token_rewards.tolist() == [0.5, -1, 2]
    assert (paid[-1], release.ledger.asked, dict(release.ledger.accounts)) == (1.5, 3.0, {"scale": 1.5})


def test_a_factor_above_one_adds_and_the_account_is_negative(letters):
    _, _, release = play(TransformTokenRewards(make(letters, [1.0, 1.0]), Scale(3)), 2)
    assert dict(release.ledger.accounts) == {"scale": -4.0}


def centre(token_rewards):
    return token_rewards - token_rewards.mean()


@pytest.mark.parametrize(
    ("transform", "account", "name"),
    [
        (Clip(2), None, "clip"),
        (Clip(2, account="limit"), None, "limit"),
        (Clip(2), "mine", "mine"),
        (Scale(2), None, "scale"),
        (centre, None, "centre"),
        (centre, "mine", "mine"),
        (lambda token_rewards: token_rewards, None, "<lambda>"),
        (functools.partial(np.clip, a_min=-1, a_max=1), None, "partial"),
    ],
)
def test_the_account_is_the_asked_one_or_the_transforms_own_name(letters, transform, account, name):
    env = TransformTokenRewards(make(letters, [1.0, 2.0, 3.0]), transform, account)
    _, _, release = play(env, 3)
    assert list(release.ledger.accounts) == [name]
    assert adds_up(release)


def test_a_plain_function_sees_one_episodes_float32_rewards_and_may_return_a_list(letters):
    seen = []

    def double(token_rewards):
        seen.append(token_rewards)
        return [2 * float(reward) for reward in token_rewards]

    paid, _, release = play(TransformTokenRewards(make(letters, [1.0, 0.0, -4.0], max_new_tokens=9), double), 3)
    assert [(array.shape, array.dtype) for array in seen] == [((3,), np.float32)]  # no padding, only at the release
    assert (paid, release.token_rewards.tolist()) == ([0.0, 0.0, -6.0], [2, 0, -8])


def test_a_transform_cannot_write_into_the_released_rewards(letters):
    def spoil(token_rewards):
        token_rewards += 1
        return token_rewards

    with pytest.raises(ValueError, match="read-only"):
        play(TransformTokenRewards(make(letters, [1.0, 2.0]), spoil), 2)


def test_all_else_that_is_released_stays_as_it_was(letters):
    def judge(episodes):
        return [{"a": [0.0, 3.0, 1.0], "b": -1.0} for _ in episodes]

    def env():
        return textgym.TextGenEnv(
            prompts=["a", "b"], tokenizer=letters, reward_fn=judge, weights={"b": 2.0}, max_new_tokens=3,
            length_limit="truncate", info_text=True,
        )  # fmt: skip

    paid, infos = [], []
    for made in (env(), TransformTokenRewards(env(), Clip(1))):
        made.reset(seed=3)
        for _ in range(3):
            step = made.step(A)
        paid.append(step[1])
        assert step[2:4] == (False, True)
        infos.append(step[4])
    plain, changed = infos
    assert paid == [2.0, 0.0]  # [0, 3, 1 - 2], and clipped [0, 1, -1]
    before, after = map(textgym.release, infos)
    for name in ("episode_id", "slot", "num_tokens", "terminated", "truncated", "is_success", "group_id", "criteria"):
        assert getattr(before, name) == getattr(after, name), name
    assert before.streams.tolist() == after.streams.tolist()
    assert before.ledger.asked == after.ledger.asked
    assert {**before.ledger.accounts, "clip": after.ledger.accounts["clip"]} == after.ledger.accounts
    assert plain.keys() | {"ledger/clip"} == changed.keys()
    for key in plain:
        assert type(plain[key]) is type(changed[key]), key
        if isinstance(plain[key], np.ndarray):
            assert (plain[key].shape, plain[key].dtype) == (changed[key].shape, changed[key].dtype), key
    assert (changed["prompt"], changed["text"]) == (plain["prompt"], plain["text"])


def test_stacked_transforms_keep_the_accounts_of_both(letters):
    env = TransformTokenRewards(TransformTokenRewards(make(letters, [1.0, 2.0, 3.0, 4.0, 5.0]), Clip(2)), Scale(0.5))
    paid, _, release = play(env, 5)
    assert (paid[-1], release.token_rewards.tolist()) == (4.5, [0.5, 1, 1, 1, 1])
    assert (release.ledger.asked, dict(release.ledger.accounts)) == (15.0, {"clip": 6.0, "scale": 4.5})


def test_the_same_account_twice_holds_the_sum_of_both(letters):
    env = TransformTokenRewards(TransformTokenRewards(make(letters, [8.0, 0.0]), Scale(0.5)), Scale(0.5))
    _, _, release = play(env, 2)
    assert (release.token_rewards.tolist(), dict(release.ledger.accounts)) == ([2, 0], {"scale": 6.0})


@pytest.mark.parametrize("result", [0.0, [1.0, 2.0], [[1.0, 2.0, 3.0]], np.zeros(4), []])
def test_a_result_of_another_shape_is_refused_and_names_transform_and_episode(letters, result):
    env = TransformTokenRewards(make(letters, [1.0, 2.0, 3.0]), lambda token_rewards: result, "mine")
    play(TransformTokenRewards(env.env, Clip(9)), 3)  # episode 0 goes well
    shape = str(np.shape(result)).replace("(", r"\(").replace(")", r"\)")
    message = rf"transform 'mine' turned 3 token rewards of episode 0 into an array of shape {shape}; .* shape \(3,\)"
    with pytest.raises(ValueError, match=message):
        play(env, 3)


@pytest.mark.parametrize(("value", "written"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf"), (1e39, r"1e\+39")])
def test_numbers_that_are_not_finite_float32_are_refused_and_name_token_and_episode(letters, value, written):
    def spoil(token_rewards):
        out = token_rewards.astype(np.float64)
        out[1] = value
        return out

    env = TransformTokenRewards(make(letters, [1.0, 2.0, 3.0]), spoil)
    with pytest.raises(ValueError, match=rf"'spoil' paid {written} on token 1 of episode 0; .* finite float32"):
        play(env, 3)


def guessing():
    env = textgym.TextGenEnv(GuessNumber(), info_text=True)
    newline = int(env.rules.tokenizer.encode("\n")[0])
    digits = {number: int(env.rules.tokenizer.encode(str(number))[0]) for number in (5, 7)}
    return env, [digits[5], newline, digits[7], newline]


def play_guesses(env, actions):
    env.reset(options={"prompt": Prompt("", metadata={"number": 7})})
    for action in actions:
        step = env.step(action)
    assert step[2]
    return step


def test_tokens_of_the_environment_cannot_be_paid(letters):
    env, actions = guessing()
    with pytest.raises(
        ValueError, match=r"'more' paid 1\.0 on token 2 of episode 0; .* 0 on tokens that the environment wrote"
    ):
        play_guesses(TransformTokenRewards(env, lambda token_rewards: token_rewards + 1.0, "more"), actions)


def test_multi_turn_texts_are_rewritten_where_the_agent_wrote():
    env, actions = guessing()
    _, reward, _, _, info = play_guesses(TransformTokenRewards(env, Clip(0.4)), actions)
    release = textgym.release(info)
    assert release.token_rewards.tolist() == pytest.approx([0, np.log(11 / 5) / np.log(11), 0, 0, 0, 0.4])
    assert not release.token_rewards[~release.agent_mask].any()
    assert reward == float(release.token_rewards.sum(dtype=np.float64))
    assert adds_up(release)


@pytest.mark.parametrize("change", [lambda reward: 2 * reward, lambda reward: reward + 1.0])
def test_a_wrapper_inside_that_changed_the_reward_is_refused(letters, change):
    env = TransformTokenRewards(gym.wrappers.TransformReward(make(letters, [1.0, 2.0]), change), Clip(1))
    with pytest.raises(ValueError, match=r"token rewards of episode 0 add up to 3\.0: a wrapper inside of this one changed"):
        play(env, 2)


def test_a_wrapper_outside_that_changes_the_reward_is_fine(letters):
    env = gym.wrappers.TransformReward(TransformTokenRewards(make(letters, [1.0, 2.0]), Clip(1)), lambda reward: 2 * reward)
    paid, _, release = play(env, 2)
    assert (paid, release.token_rewards.tolist()) == ([0.0, 4.0], [1, 1])


def test_other_wrappers_inside_are_no_obstacle(letters):
    env = make(letters, [1.0, 2.0])
    for wrap in (gym.wrappers.OrderEnforcing, gym.wrappers.RecordEpisodeStatistics, gym.wrappers.FlattenObservation):
        env = wrap(env)
    _, info, release = play(TransformTokenRewards(env, Clip(1)), 2)
    assert release.token_rewards.tolist() == [1, 1]
    assert info["episode"]["r"] == 3.0  # written inside, before the rewards were rewritten


def test_every_step_before_the_last_is_handed_on_untouched(letters):
    env, inner = TransformTokenRewards(make(letters, [9.0] * 4), Clip(1)), make(letters, [9.0] * 4)
    np.testing.assert_array_equal(env.reset(seed=1)[0], inner.reset(seed=1)[0])
    for action in (A, A, A):
        got, expected = env.step(action), inner.step(action)
        np.testing.assert_array_equal(got[0], expected[0])
        assert got[1:] == expected[1:] == (0.0, False, False, {})


def test_step_keeps_to_python_floats_and_bools(letters):
    env = TransformTokenRewards(make(letters, [1.0]), Clip(1))
    env.reset(seed=0)
    _, reward, terminated, truncated, _ = env.step(EOS)
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)


def test_large_rewards_that_cancel_raise_no_false_alarm_of_the_ledger(letters):
    """What float32 rounds off the large rewards is no missing amount, however small they become."""
    rewards = [1000.1, -1000.2] * 25
    assert play(make(letters, rewards, max_new_tokens=50), 50)[0][-1] == pytest.approx(-2.5, abs=0.01)
    paid, _, release = play(TransformTokenRewards(make(letters, rewards, max_new_tokens=50), Clip(0.5)), 50)
    assert (paid[-1], set(abs(release.token_rewards).tolist())) == (0.0, {0.5})
    assert release.ledger.accounts["clip"] == pytest.approx(-2.5, abs=0.01)


transforms = st.one_of(
    st.floats(0.01, 10).map(Clip),
    st.floats(-4, 4).map(Scale),
    st.sampled_from([np.tanh, np.zeros_like, centre, lambda rewards: rewards[::-1], lambda rewards: rewards**2]),
)


@given(
    rewards=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=12),
    stack=st.lists(transforms, min_size=1, max_size=3),
)
def test_nothing_vanishes_whatever_is_paid_and_however_it_is_transformed(letters, rewards, stack):
    env = make(letters, rewards)
    for transform in stack:
        env = TransformTokenRewards(env, transform)
    paid, info, release = play(env, len(rewards))
    expected = np.asarray(rewards, dtype=np.float32)
    for transform in stack:
        expected = np.asarray(transform(expected), dtype=np.float32)
    np.testing.assert_array_equal(release.token_rewards, expected)
    assert info["token_rewards"].shape == info["token_streams"].shape == info["agent_mask"].shape == (20,)
    np.testing.assert_array_equal(info["token_rewards"][len(rewards) :], 0)
    assert paid == [0.0] * (len(rewards) - 1) + [float(expected.sum(dtype=np.float64))]
    assert release.ledger.asked == pytest.approx(sum(rewards), rel=1e-6, abs=1e-5)
    size = float(np.abs(expected).sum()) + sum(map(abs, release.ledger.accounts.values()))
    missing = release.ledger.asked - paid[-1] - sum(release.ledger.accounts.values())
    assert abs(missing) <= 1e-5 * max(1.0, size)


def test_a_wrapped_environment_is_made_again_from_its_spec():
    env = TransformTokenRewards(gym.make("TextGen-v0"), Scale(2.0), "double")
    again = gym.make(env.spec)
    assert isinstance(again, TransformTokenRewards)
    assert (again.account, again.transform) == ("double", Scale(2.0))


@pytest.mark.parametrize("limit", [0, -1.0, float("nan"), float("inf")])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(ValueError, match="finite and above 0"):
        Clip(limit)
    if limit != limit or limit > 1:
        with pytest.raises(ValueError, match="must be finite"):
            Scale(limit)


@pytest.mark.parametrize("transform", [Clip, {"limit": 2.0}, None])
def test_what_is_no_transform_is_refused_at_construction(transform):
    with pytest.raises(TypeError, match="give a function"):
        TransformTokenRewards(gym.make("TextGen-v0"), transform)
    with pytest.raises(TypeError, match="positional"):
        Clip(-1.0, 2.0)

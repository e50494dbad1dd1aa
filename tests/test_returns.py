import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.buffers import RolloutBuffer
from textgym_agents.returns import stream_gae, whole_stream_returns


def run(rewards, values, streams=None, mask=None, final=0.0, truncated=False, **kwargs):
    rewards, values = torch.tensor([rewards], dtype=torch.float64), torch.tensor([values], dtype=torch.float64)
    streams = torch.zeros_like(rewards, dtype=torch.long) if streams is None else torch.tensor([streams])
    mask = torch.ones_like(rewards, dtype=torch.bool) if mask is None else torch.tensor([mask])
    advantages, returns = stream_gae(
        rewards,
        values,
        streams,
        mask,
        torch.tensor([final], dtype=torch.float64),
        torch.tensor([truncated]),
        **kwargs,
    )
    return advantages[0].tolist(), returns[0].tolist()


def plain_gae(rewards, values, last_value, gamma, lam):
    """Ordinary GAE, written independently of the product, forwards from its definition as a double sum."""
    following = [*values[1:], last_value][: len(values)]
    deltas = [r + gamma * n - v for r, n, v in zip(rewards, following, values, strict=True)]
    return [sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, len(deltas))) for i in range(len(deltas))]


def test_hand_worked_numbers_of_two_interleaved_streams():
    # streams 0 1 0 1, gamma .5, lambda .5; each stream by hand:
    # stream 0: rewards 1, 3 values 2, 4: delta = 1 + .5*4 - 2 = 1; delta' = 3 - 4 = -1; A' = -1; A = 1 + .25*-1 = .75
    # stream 1: rewards 2, 5 values 1, 2: delta = 2 + .5*2 - 1 = 2; delta' = 5 - 2 = 3; A' = 3; A = 2 + .25*3 = 2.75
    advantages, returns = run([1, 2, 3, 5], [2, 1, 4, 2], [0, 1, 0, 1], gamma=0.5, gae_lambda=0.5)
    assert advantages == pytest.approx([0.75, 2.75, -1, 3])
    assert returns == pytest.approx([2.75, 3.75, 3, 5])


def test_reward_on_second_speaker_never_reaches_first():
    advantages, _ = run([0, 0, 0, 10], [0] * 4, [0, 0, 1, 1])
    assert advantages == [0, 0, 10, 10]


def test_reward_on_first_speaker_never_reaches_second():
    advantages, _ = run([0, 10, 0, 0], [0] * 4, [0, 0, 1, 1])
    assert advantages == [10, 10, 0, 0]


def test_one_stream_of_a_constant_mass_hides_the_first_speakers_part_F07():
    one, _ = run([0, 1, 0, -1], [0] * 4)
    assert one == [0, 0, -1, -1]  # the first speaker won and sees nothing of it
    streams, _ = run([0, 1, 0, -1], [0] * 4, [0, 0, 1, 1])
    assert streams == [1, 1, -1, -1]


@settings(max_examples=200)
@given(
    rows=st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=12),
    gamma=st.floats(0, 1),
    lam=st.floats(0, 1),
    final=st.floats(-3, 3),
    truncated=st.booleans(),
)
def test_one_stream_is_ordinary_gae(rows, gamma, lam, final, truncated):
    rewards, values = [r for r, _ in rows], [v for _, v in rows]
    advantages, _ = run(rewards, values, final=final, truncated=truncated, gamma=gamma, gae_lambda=lam)
    assert advantages == pytest.approx(plain_gae(rewards, values, final if truncated else 0.0, gamma, lam), abs=1e-9)


@settings(max_examples=200)
@given(data=st.data(), gamma=st.floats(0, 1), lam=st.floats(0, 1), truncated=st.booleans())
def test_each_stream_is_ordinary_gae_over_its_own_tokens(data, gamma, lam, truncated):
    count = data.draw(st.integers(1, 12))
    draw = lambda kind: data.draw(st.lists(kind, min_size=count, max_size=count))  # noqa: E731
    rewards, values = draw(st.floats(-3, 3)), draw(st.floats(-3, 3))
    streams, mask = draw(st.sampled_from([0, 1, 7, 1000])), draw(st.booleans())
    advantages, _ = run(rewards, values, streams, mask, 2.0, truncated, gamma=gamma, gae_lambda=lam)
    last = max((i for i in range(count) if mask[i]), default=None)
    for stream in set(streams):
        mine = [i for i in range(count) if mask[i] and streams[i] == stream]
        bootstrap = 2.0 if truncated and last in mine else 0.0
        expected = plain_gae([rewards[i] for i in mine], [values[i] for i in mine], bootstrap, gamma, lam)
        assert [advantages[i] for i in mine] == pytest.approx(expected, abs=1e-9)
    assert all(advantages[i] == 0 for i in range(count) if not mask[i])


@pytest.mark.parametrize(("gamma", "gae_lambda"), [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0)])
def test_equals_stable_baselines3_on_one_stream(gamma, gae_lambda):
    """Two episodes one after the other in each of its environments; its second ones end or, every other, are cut off."""
    rng = np.random.default_rng(0)
    rewards, values = rng.normal(size=(2, 9, 4)).astype(np.float32)
    final, truncated, first = rng.normal(size=4).astype(np.float32), np.array([True, False] * 2), [2, 4, 5, 8]
    buffer = RolloutBuffer(9, Box(0, 1, (1,)), Discrete(2), device="cpu", n_envs=4, gamma=gamma, gae_lambda=gae_lambda)
    for t in range(9):
        starts = np.array([t in (0, length) for length in first])
        buffer.add(np.zeros((4, 1)), np.zeros((4, 1)), rewards[t], starts, torch.tensor(values[t]), torch.zeros(4))
    buffer.compute_returns_and_advantage(torch.tensor(final), ~truncated)
    for env, length in enumerate(first):
        for part, cut in ((slice(0, length), False), (slice(length, 9), bool(truncated[env]))):
            advantages, returns = run(
                rewards[part, env].tolist(),
                values[part, env].tolist(),
                final=float(final[env]),
                truncated=cut,
                gamma=gamma,
                gae_lambda=gae_lambda,
            )
            assert advantages == pytest.approx(buffer.advantages[part, env].tolist(), abs=1e-5)
            assert returns == pytest.approx(buffer.returns[part, env].tolist(), abs=1e-5)


def test_values_at_padding_change_nothing_F02():
    mask = [True, True, True, False, False]
    clean = run([0, 0, 1, 0, 0], [0.5, 0.25, 0.125, 0, 0], mask=mask, gae_lambda=0.9)
    dirty = run([0, 0, 1, 0, 0], [0.5, 0.25, 0.125, 10, 10], streams=[0, 0, 0, -1, 3], mask=mask, gae_lambda=0.9)
    assert clean == dirty


def test_padding_to_5_and_to_40_gives_the_same_numbers_F04():
    def padded(width):
        blank = [0.0] * (width - 3)
        mask = [True] * 3 + [False] * len(blank)
        return run([0, 0, 1, *blank], [0.5, 0.25, 0.125, *blank], [0, 1, 0, *([-1] * len(blank))], mask)[0][:3]

    assert padded(5) == padded(40)


def test_sentinels_in_masked_cells_never_become_nan_F09():
    mask = [True, True, False]
    advantages, returns = run([0, 1, float("-inf")], [0, 0, float("nan")], [0, 0, -1], mask)
    assert advantages == [1, 1, 0]
    assert returns == [1, 1, 0]


def test_truncation_bootstraps_and_termination_does_not_F05():
    assert run([0, 0], [0, 0], final=5.0, truncated=True)[0] == [5, 5]
    assert run([0, 0], [0, 0], final=5.0, truncated=False)[0] == [0, 0]
    # only the stream of the last agent token is continued
    assert run([0, 0], [0, 0], [0, 1], final=5.0, truncated=True)[0] == [0, 5]
    assert run([0, 0, 0], [0, 0, 0], [0, 1, -1], [True, True, False], final=5.0, truncated=True)[0] == [0, 5, 0]


@pytest.mark.parametrize("between", [0, 10, 100])
def test_neither_gamma_nor_lambda_decays_over_the_environments_tokens(between):
    advantages, _ = run(
        [0.0] + [0.0] * between + [1.0],
        [0.3] + [9.0] * between + [0.1],
        [0] + [-1] * between + [0],
        [True] + [False] * between + [True],
        gamma=0.9,
        gae_lambda=0.95,
    )
    assert advantages[0] == pytest.approx(0.9 * 0.1 - 0.3 + 0.9 * 0.95 * 0.9)


def test_an_episode_without_agent_tokens_has_no_advantages():
    assert run([0, 0], [1, 1], mask=[False, False], final=3.0, truncated=True) == ([0, 0], [0, 0])


def test_what_is_not_finite_is_named():
    with pytest.raises(ValueError, match="token_rewards of row 0"):
        run([0, float("nan")], [0, 0])
    with pytest.raises(ValueError, match="values of row 0"):
        run([0, 0], [0, float("inf")])


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"values has shape \(1, 2\), expected \(1, 3\)"):
        run([0, 0, 0], [0, 0])


@pytest.mark.parametrize("reply", [0, 10, 100])
def test_a_reply_of_any_length_changes_no_advantage_F06(reply):
    """gamma and lambda do not decay over tokens that the environment wrote."""

    def first_advantage(between):
        mask = torch.tensor([[True] * 2 + [False] * between + [True] * 2])
        rewards, values = torch.zeros(1, 4 + between), torch.full((1, 4 + between), 7.0)
        rewards[0, -1], values[mask] = 1.0, torch.tensor([0.1, 0.2, 0.3, 0.4])
        streams = torch.where(mask, 0, -1)
        blank = torch.zeros(1), torch.zeros(1, dtype=torch.bool)
        advantages, _ = stream_gae(rewards, values, streams, mask, *blank, gamma=0.9, gae_lambda=0.95)
        return advantages[mask]

    torch.testing.assert_close(first_advantage(reply), first_advantage(0))


def whole(rewards, values, streams, mask=None, final=0.0, truncated=False):
    rewards, values = torch.tensor([rewards], dtype=torch.float64), torch.tensor([values], dtype=torch.float64)
    mask = torch.ones_like(rewards, dtype=torch.bool) if mask is None else torch.tensor([mask])
    ends = torch.tensor([final], dtype=torch.float64), torch.tensor([truncated])
    advantages, returns = whole_stream_returns(rewards, values, torch.tensor([streams]), mask, *ends)
    return advantages[0].tolist(), returns[0].tolist()


def test_whole_stream_returns_give_each_token_all_of_its_stream_by_hand():
    advantages, returns = whole([1.0, 2.0, 0.0, 3.0, 5.0], [0.5, 1, 9, 1, 2], [0, 1, -1, 0, 1], [True, True, False, True, True])
    assert returns == [4, 7, 0, 4, 7]
    assert advantages == [3.5, 6, 0, 3, 5]
    assert whole([0.0, 1.0], [0, 0], [0, 1], final=5.0, truncated=True)[1] == [0, 6]
    assert whole([2.0, 1.0], [0, 0], [0, 0], final=5.0, truncated=True)[1] == [8, 8]
    with pytest.raises(ValueError, match="values of row 0"):
        whole([0.0], [float("nan")], [0])


def test_a_reward_booked_one_token_too_early_is_erased_by_reward_to_go_and_repaired_by_whole_streams_F08():
    """The second of two tokens decides, and its reward is booked on the first."""
    assert run([1.0, 0.0], [0, 0])[0] == [1, 0]
    assert whole([1.0, 0.0], [0, 0], [0, 0])[0] == [1, 1]

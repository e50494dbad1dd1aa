"""The enumeration against independent truths: finite differences, hand-worked numbers, and tokens booked too early."""

import warnings

import numpy as np
import pytest

from textgym import PromptTask, symbol_tokenizer
from textgym.checks import check_task
from textgym.credit import (
    KeepLast,
    Last,
    LeaveOneOut,
    MonteCarlo,
    NonCausalCreditWarning,
    PrefixDifference,
    Uniform,
    warn_non_causal,
)
from textgym.exact import Enumeration, credit_error
from textgym.tasks import TASKS
from textgym.tasks.copying import Copying
from textgym.tasks.credit_probes import ProbeStreams

PROBES = [name for name in TASKS if name.startswith("probe_")]


class OneTooEarly:
    """Books all that a text earned on the token before the last: F08."""

    causal = False
    conserves = True

    def __call__(self, scores, episodes):
        out = []
        for score, episode in zip(scores, episodes, strict=True):
            paid = np.zeros(len(episode.ids))
            paid[np.flatnonzero(episode.agent_mask)[-2:][0]] = score
            out.append(paid)
        return out


def numeric_gradient(texts, logits, of_text, step=1e-5):
    """Central differences of the expectation of ``of_text`` (E,)."""
    out = np.zeros(logits.shape)
    for entry in zip(*np.nonzero(texts.allowed), strict=True):
        moved = []
        for sign in (1, -1):
            other = logits.copy()
            other[entry] += sign * step
            moved.append(texts.probabilities(other) @ of_text)
        out[entry] = (moved[0] - moved[1]) / (2 * step)
    return out


@pytest.mark.parametrize("rows", ["history", "position"])
@pytest.mark.parametrize("name", [name for name in PROBES if name not in ("probe_decisive", "probe_distractors")])
def test_probabilities_add_up_and_the_gradient_of_the_total_is_that_of_finite_differences(name, rows):
    texts = Enumeration(name, rows)
    logits = texts.random_logits(1)
    assert texts.probabilities(logits).sum() == pytest.approx(1.0)
    total = np.array([float(release.token_rewards.sum(dtype=np.float64)) for release in texts.releases()])
    expected = numeric_gradient(texts, logits, total)
    np.testing.assert_allclose(texts.true_gradient(logits, texts.releases()), expected, atol=1e-8)


@pytest.mark.parametrize("name", PROBES)
def test_exact_rewards_have_the_gradient_of_the_exact_advantages(name):
    """Gradient by way of advantages: how often a row is met, times pi, times the advantage."""
    texts = Enumeration(name, "position" if name in ("probe_streams", "probe_pennies") else "history")
    for seed in range(3):
        logits = texts.random_logits(seed)
        own = texts.credit(texts.releases(), "whole_stream")
        chance = np.broadcast_to(texts.probabilities(logits)[:, None], own.shape)
        met = np.bincount(texts.rows[texts.mask], chance[texts.mask])
        expected = met[:, None] * texts.policy(logits) * texts.advantages(logits, own)
        np.testing.assert_allclose(texts.gradient(logits, own), expected, atol=1e-12)
        assert credit_error(texts, logits).cosine >= 0.99
        assert credit_error(texts, logits, returns="whole_stream").cosine >= 0.99


def test_hand_worked_advantages_and_variance_of_one_token():
    """a earns 1, b earns nothing, P(a) = 1/4: A(a) = 3/4, A(b) = -1/4, and g(a) = P(a) A(a) = 3/16 = -g(b)."""
    task = PromptTask([""], symbol_tokenizer(["a", "b"]), lambda e: [float(x.text == "a") for x in e], max_new_tokens=1)
    task.choices = ["ab"]
    texts = Enumeration(task)
    logits = np.zeros(texts.allowed.shape)
    a, b = texts.rules.tokenizer.encode("ab")
    logits[0, b] = np.log(3.0)
    own = texts.credit(texts.releases())
    assert texts.advantages(logits, own)[0, [a, b]].tolist() == pytest.approx([0.75, -0.25])
    assert texts.gradient(logits, own)[0, [a, b]].tolist() == pytest.approx([3 / 16, -3 / 16])
    # one text's gradient: +-(A grad log pi): a: 3/4 (3/4, -3/4), b: -1/4 (-1/4, 1/4); E|.|^2 = 1/4 81/128 + 3/4 1/128
    second = 0.25 * 2 * (0.75 * 0.75) ** 2 + 0.75 * 2 * (0.25 * 0.25) ** 2
    square = 2 * (3 / 16) ** 2
    error = credit_error(texts, logits)
    assert error.variance == pytest.approx((second - square) / square)
    assert (error.sign_accuracy, error.rank_correlation, error.cosine) == pytest.approx((1, 1, 1))


def test_all_tokens_are_choices_where_a_task_names_none():
    task = PromptTask([""], symbol_tokenizer(["a", "b"]), lambda e: [0.0] * len(e), max_new_tokens=2)
    texts = Enumeration(task)  # V = 4: a, b and two special tokens, one of which ends the text
    assert len(texts.episodes) == len({episode.ids.tobytes() for episode in texts.episodes}) == 1 + 3 * 4
    with pytest.raises(ValueError, match="more than 20000 texts"):
        Enumeration(PromptTask([""], symbol_tokenizer(list("abcdef")), lambda e: [0.0] * len(e), max_new_tokens=9))


def test_the_cut_gradient_is_the_true_one_only_where_streams_do_not_influence_each_other():
    def cosine(task, rows):
        texts = Enumeration(task, rows)
        logits, releases = texts.random_logits(0), texts.releases()
        cut = texts.gradient(logits, texts.credit(releases, "reward_to_go"))
        whole = texts.true_gradient(logits, releases)
        return float((cut * whole).sum() / np.linalg.norm(cut) / np.linalg.norm(whole))

    assert cosine(ProbeStreams(influence=False), "position") == pytest.approx(1.0)
    assert cosine(ProbeStreams(influence=True), "position") < 0.9
    assert cosine(ProbeStreams(influence=False), "history") < 0.999  # by way of a policy that looks


def test_matching_pennies_turn_around_the_even_mixture_and_never_arrive():
    texts = Enumeration("probe_pennies", "position")
    heads, releases = texts.rules.tokenizer.encode("hH"), texts.releases()
    logits, path = texts.random_logits(1, 0.5), []
    for _ in range(600):
        path.append(texts.policy(logits)[[0, 1], heads] - 0.5)
        logits = logits + 0.1 * texts.gradient(logits, texts.credit(releases))
    angle = np.unwrap(np.arctan2(*np.array(path).T))
    assert abs(angle[-1] - angle[0]) > 2 * 2 * np.pi
    assert np.linalg.norm(path[-1]) > np.linalg.norm(path[0])
    seen = Enumeration("probe_pennies", "history")  # a second player who sees the coin wins
    logits = seen.random_logits(1, 0.5)
    for _ in range(300):
        logits = logits + seen.gradient(logits, seen.credit(seen.releases()))
    first = np.array([release.token_rewards[0] for release in seen.releases()])
    assert seen.probabilities(logits) @ first < -0.9


def test_what_is_booked_one_token_too_early_is_erased_caught_and_repaired_by_either_remedy_F08():
    texts = Enumeration("probe_reply")  # two tokens of the agent's; the second one is what is paid
    logits, early = texts.random_logits(0), OneTooEarly()
    final_rows = np.unique(texts.rows[:, 1])
    exact = texts.gradient(logits, texts.credit(texts.releases()))

    def learned(assigner, returns):
        return texts.gradient(logits, texts.credit(texts.releases(assigner), returns))

    assert np.abs(exact[final_rows]).max() > 1e-3
    assert np.abs(learned(early, "reward_to_go")[final_rows]).max() < 1e-12  # the second token sees nothing
    assert credit_error(texts, logits, early).cosine < 0.95
    with pytest.warns(NonCausalCreditWarning):
        warn_non_causal(early)
    assert credit_error(texts, logits, early, "whole_stream").cosine >= 0.99
    kept = KeepLast(early, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_non_causal(kept)
    rows = learned(kept, "reward_to_go")[final_rows]
    np.testing.assert_allclose(rows, 0.5 * exact[final_rows], atol=1e-7)  # in the direction of the truth again
    assert credit_error(texts, logits, KeepLast(early, 0.9)).cosine >= 0.99


def test_the_second_token_that_decides_learns_only_with_a_remedy_F08():
    """P(right) after 200 exact steps, in a task of two tokens whose reward is booked one token too early."""
    task = PromptTask([""], symbol_tokenizer(list("xyab")), lambda e: [float("a" in x.text) for x in e], max_new_tokens=2)
    task.choices = ["xy", "ab"]
    texts = Enumeration(task)
    right = np.array(["a" in episode.text for episode in texts.episodes])

    def learned(assigner, returns):
        logits = np.zeros(texts.allowed.shape)
        for _ in range(200):
            logits = logits + 2.0 * texts.gradient(logits, texts.credit(texts.releases(assigner), returns))
        return float(texts.probabilities(logits)[right].sum())

    assert learned(OneTooEarly(), "reward_to_go") == pytest.approx(0.5)
    assert learned(OneTooEarly(), "whole_stream") > 0.98
    assert learned(KeepLast(OneTooEarly(), 0.5), "reward_to_go") > 0.98


@pytest.mark.parametrize("name", ["probe_joint", "probe_reply", "probe_length"])
def test_causal_assigners_have_the_true_gradient_and_whole_streams_give_it_to_all(name):
    texts = Enumeration(name)
    logits = texts.random_logits(2)
    for assigner in (Last(), PrefixDifference(), MonteCarlo(continuations=texts.continuations(logits))):
        assert assigner.causal
        assert credit_error(texts, logits, assigner).cosine == pytest.approx(1.0)
    for assigner in (Uniform(), LeaveOneOut()):
        assert credit_error(texts, logits, assigner, "whole_stream").cosine == pytest.approx(1.0)


def test_many_continuations_come_near_the_exact_advantages():
    texts = Enumeration("probe_reply")
    logits = texts.random_logits(0)
    assigner = MonteCarlo(continuations=texts.continuations(logits), k=400)
    error = credit_error(texts, logits, assigner, "token")
    assert error.cosine > 0.995
    assert error.rank_correlation > 0.99
    assert error.reward_calls == 400


@pytest.mark.parametrize("name", ["probe_reply", "probe_length"])
def test_a_tasks_checks_pass_with_an_assigner_across_replies_and_lengths(name):
    check_task(name, episodes=8)
    texts = Enumeration(name)
    for release in texts.releases(PrefixDifference()):
        assert not release.token_rewards[~release.agent_mask].any()


def test_tasks_whose_prompts_differ_are_refused():
    with pytest.raises(ValueError, match=r"draws different prompts, '.>' \{\} and '.>' \{\}; exact truth"):
        Enumeration(Copying(length=1, alphabet=2))


def test_a_policy_far_from_what_it_may_not_draw_is_still_one():
    texts = Enumeration("probe_length")
    logits = np.where(texts.allowed, -2000.0, 0.0)
    assert texts.policy(logits) == pytest.approx(texts.policy(np.zeros_like(logits)))

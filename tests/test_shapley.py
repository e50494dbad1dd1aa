"""Against all orders, one by one: the oracle adds up marginal contributions and knows no formula."""

import itertools
from functools import cache

import numpy as np
import pytest
from conftest import build_episode

from textgym.credit import Shapley
from textgym.parts import Part, matches

LETTERS = "abcdefgh"


def words(episode):
    return matches(episode, "[a-z]+")


def set_function(worth):
    def score(episodes):
        return [worth[sum(1 << LETTERS.index(letter) for letter in e.text)] for e in episodes]

    return score


@cache
def orders(count):
    """All orders as int (orders, count), and the players before each place as bits."""
    found = np.array(list(itertools.permutations(range(count))))
    bits = 1 << found
    return found, bits.cumsum(1) - bits


def mean_marginals(worth, found, before):
    gains = worth[before | (1 << found)] - worth[before]
    return [float(gains[found == player].mean()) for player in range(found.shape[1])]


def random_worth(rng, count):
    worth = rng.normal(size=256)
    worth[0] = 0.0
    return worth, (1 << count) - 1


def test_equals_a_brute_force_oracle_on_1000_random_set_functions():
    rng = np.random.default_rng(0)
    for number in range(1000):
        count = 8 if number < 20 else int(rng.integers(1, 8))  # all 40,320 orders of 8 a few times, of up to 7 the rest
        worth, everyone = random_worth(rng, count)
        (paid,) = Shapley(set_function(worth))([worth[everyone]], [build_episode(LETTERS[:count])])
        assert paid.tolist() == pytest.approx(mean_marginals(worth, *orders(count)), abs=1e-12)


@pytest.mark.parametrize("sizes", [(2, 2), (3, 1, 2), (1, 1, 1), (4,), (2, 3, 2), (1, 4)])
def test_owen_values_count_only_orders_that_keep_groups_together(sizes):
    rng = np.random.default_rng(1)
    edges = np.cumsum([0, *sizes])
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    found, before = orders(int(edges[-1]))
    together = [len(list(itertools.groupby(group_of[order]))) == len(sizes) for order in found]
    for _ in range(20):
        worth, everyone = random_worth(rng, int(edges[-1]))
        grouped = Shapley(set_function(worth), groups=lambda e: [Part(int(a), int(b)) for a, b in itertools.pairwise(edges)])
        (paid,) = grouped([worth[everyone]], [build_episode(LETTERS[: edges[-1]])])
        assert paid.tolist() == pytest.approx(mean_marginals(worth, found[together], before[together]), abs=1e-12)


def test_owen_values_add_up_to_the_shapley_values_of_the_groups():
    worth, everyone = random_worth(np.random.default_rng(2), 5)
    groups = [Part(0, 2), Part(2, 5)]
    (paid,) = Shapley(set_function(worth), groups=lambda e: groups)([worth[everyone]], [build_episode("abcde")])
    (of_groups,) = Shapley(set_function(worth), lambda e: groups)([worth[everyone]], [build_episode("abcde")])
    assert [paid[:2].sum(), paid[2:].sum()] == pytest.approx([of_groups[1], of_groups[4]])


def test_beyond_exact_parts_drawn_orders_come_near_and_keep_the_sum():
    worth, everyone = random_worth(np.random.default_rng(3), 5)
    exact = Shapley(set_function(worth))([worth[everyone]], [build_episode("abcde")])[0]
    few, many = (
        Shapley(set_function(worth), exact=0, permutations=n)([worth[everyone]], [build_episode("abcde")])[0] for n in (2, 4000)
    )
    assert few.sum() == pytest.approx(worth[everyone])
    assert np.abs(few - exact).max() > 0.1
    assert many.tolist() == pytest.approx(exact.tolist(), abs=0.06)


def test_parts_that_matter_only_together_share_it_and_what_stands_in_none_is_paid_last():
    both = Shapley(lambda episodes: [float("a" in e.text and "b" in e.text) + 0.5 for e in episodes], words)
    assert both([1.5], [build_episode("a b.")])[0].tolist() == [0.5, 0, 0.5, 0.5]
    assert both.reward_calls == 3


def test_the_cost_is_what_is_said():
    for count, texts in ((3, 2**3 - 2), (8, 2**8 - 2)):
        assigner = Shapley(lambda episodes: [0.0] * len(episodes))
        assigner([1.0], [build_episode(LETTERS[:count])])
        assert assigner.reward_calls == texts
    drawn = Shapley(lambda episodes: [0.0] * len(episodes), permutations=5)
    drawn([1.0], [build_episode("a" * 40)])
    assert drawn.reward_calls <= 5 * 39


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="exact is 17"):
        Shapley(exact=17)
    with pytest.raises(ValueError, match="groups of episode 7 overlap"):
        Shapley(lambda e: [0.0] * len(e), groups=lambda e: [Part(0, 2), Part(1, 3)])([1.0], [build_episode("abc")])

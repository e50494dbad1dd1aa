"""One generator per slot: seeded as SyncVectorEnv seeds, shared draws within a group."""

import pickle

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.seeding import np_random
from gymnasium.vector import SyncVectorEnv

from textgym.seeds import SlotGenerators


def draws(generators, count=3):
    """The next numbers of every slot."""
    return [generators[slot].integers(1_000_000, size=count).tolist() for slot in range(generators.num_envs)]


def made(num_envs, group_size, seed=None, slots=None):
    generators = SlotGenerators(num_envs, group_size)
    generators.seed(range(num_envs) if slots is None else slots, seed)
    return generators


@pytest.mark.parametrize("seed", [0, 5, np.int64(5), [3, 1, 4, 1]])
def test_slots_are_seeded_as_sync_vector_env_seeds_them(seed):
    envs = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 4)
    envs.reset(seed=int(seed) if isinstance(seed, np.int64) else seed)
    generators = made(4, 1, seed)
    expected = [np_random(single)[0].integers(1_000_000, size=3).tolist() for single in envs.np_random_seed]
    assert tuple(generators.seeds) == envs.np_random_seed
    assert draws(generators) == expected


def test_slot_i_has_seed_plus_i():
    generators = made(3, 1, 10)
    assert generators.seeds == [10, 11, 12]
    assert draws(generators) == [np_random(seed)[0].integers(1_000_000, size=3).tolist() for seed in (10, 11, 12)]


def test_slots_of_a_group_have_one_seed_and_draw_the_same_from_generators_of_their_own():
    generators = made(6, 3, 10)
    assert generators.seeds == [10, 10, 10, 11, 11, 11]
    first, second, third, *others = draws(generators)
    assert first == second == third != others[0]
    assert others[0] == others[1] == others[2]
    assert generators[0] is not generators[1]
    generators[0].random()  # a draw of one is not a draw of another
    assert draws(generators)[1] == draws(made_after(generators, 1))[0]


def made_after(generators, slot):
    """A group of one at the place where ``slot`` was before its last three draws."""
    copy = SlotGenerators(1, 1)
    copy.seed([0], generators.seeds[slot])
    copy[0].integers(1_000_000, size=3)
    return copy


def test_slots_that_were_never_seeded_share_a_drawn_seed_within_their_group():
    generators = SlotGenerators(4, 2)
    assert generators.seeds == [-1] * 4
    one, two, three, four = draws(generators)
    assert one == two != three == four
    assert generators.seeds[0] == generators.seeds[1] != generators.seeds[2] == generators.seeds[3]
    assert min(generators.seeds) >= 0
    again = made(4, 1, list(generators.seeds))  # the drawn seeds say how to get the same again
    assert draws(again) == [one, two, three, four]


def test_any_slot_of_a_group_may_be_asked_first():
    generators = SlotGenerators(4, 2)
    third = generators[3].integers(1_000_000, size=3).tolist()
    assert generators.seeds[:2] == [-1, -1]  # the other group was not asked
    assert generators[2].integers(1_000_000, size=3).tolist() == third


def test_two_unseeded_objects_differ():
    assert draws(SlotGenerators(1, 1)) != draws(SlotGenerators(1, 1))


def test_a_generator_goes_on_where_it_was():
    generators = made(2, 1, 4)
    expected = np_random(5)[0].integers(1_000_000, size=6).tolist()
    assert draws(generators)[1] + draws(generators)[1] == expected


def test_no_seed_leaves_generators_as_they_are():
    generators, other = made(3, 1, 4), made(3, 1, 4)
    assert draws(generators) == draws(other)
    generators.seed(range(3), None)
    generators.seed([0, 1, 2], [None, None, 9])
    assert generators.seeds == [4, 5, 9]
    now, expected = draws(generators), draws(other)
    assert now[:2] == expected[:2]
    assert now[2] == np_random(9)[0].integers(1_000_000, size=3).tolist()


def test_only_the_slots_that_start_are_seeded_and_by_their_own_number():
    generators = made(4, 1, 0)
    generators.seed([1, 3], 100)
    assert generators.seeds == [0, 101, 2, 103]
    generators.seed([2], [7, 8, 9, 10])
    assert generators.seeds == [0, 101, 9, 103]


def test_a_group_of_which_one_slot_was_seeded_keeps_that_one():
    generators = made(2, 2, 6, slots=[0])
    expected = np_random(6)[0].integers(1_000_000, size=3).tolist()
    draws(generators)
    assert generators.seeds[0] == 6
    assert made_after(generators, 0)[0].random() == generators[0].random()
    assert generators.seeds[1] != -1
    assert np_random(6)[0].integers(1_000_000, size=3).tolist() == expected


@pytest.mark.parametrize("seed", [[], [1], [1, 2, 3, 4, 5]])
def test_a_list_of_another_length_is_refused(seed):
    generators = made(4, 1, 0)
    with pytest.raises(ValueError, match=rf"seed has {len(seed)} entries for 4 slots; give one number or one per slot"):
        generators.seed(range(4), seed)
    assert generators.seeds == [0, 1, 2, 3]


@pytest.mark.parametrize("seed", [[1, 2, 3, 3], [1, 1, 3, None], [0, 0, 0, 1]])
def test_seeds_that_differ_within_a_group_are_refused(seed):
    generators = made(4, 2, 0)
    with pytest.raises(ValueError, match=r"seed is \[.*\]; slots of one group \(group_size 2\) need the same seed"):
        generators.seed(range(4), seed)
    assert generators.seeds == [0, 0, 1, 1]


def test_groups_may_be_given_a_seed_each_or_none():
    generators = SlotGenerators(4, 2)
    generators.seed(range(4), [5, 5, None, None])
    assert generators.seeds == [5, 5, -1, -1]


def test_a_negative_seed_is_gymnasiums_error():
    with pytest.raises(gym.error.Error, match="-5"):
        made(2, 1, -5)


def test_a_pickled_copy_draws_what_the_original_draws():
    generators = made(4, 2, 3)
    draws(generators)
    copy = pickle.loads(pickle.dumps(generators))  # noqa: S301
    assert draws(copy) == draws(generators)

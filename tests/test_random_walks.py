"""Random walks: the reference graph, optimality by hand, and a dense reward that sums to it."""

import numpy as np
import pytest
from conftest import play_text
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import Prompt
from textgym.tasks.random_walks import RandomWalks


@pytest.fixture(scope="module")
def walks():
    return RandomWalks(reward="dense")


def play(task, start, text):
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=0, options={"prompt": Prompt(start)})
    for token in [*task.tokenizer.encode(text), 1]:
        _, reward, terminated, _, info = env.step(int(token))
        if terminated:
            break
    return reward, info, textgym.release(info)


def test_the_reference_graph_has_51_edges_beside_the_goals_own(walks):
    assert int(walks.edges.sum()) == 52
    assert walks.edges[0].tolist() == [True] + [False] * 20
    assert not walks.edges[1:].diagonal(1).any()
    assert walks.distance.max() < 9
    assert len(walks.walks) == 1000
    assert max(map(len, walks.walks)) == 10


def test_offline_walks_are_valid_and_far_from_shortest(walks):
    scores = []
    for prompt, text in walks.demonstrations(np.random.default_rng(0), 400):
        reward, info, _ = play(walks, prompt.text, text)
        assert info["text"] == text
        assert info["ended_by"] == ("stop" if text.endswith("a") else "length")
        scores.append(reward)
    assert 0.3 < np.mean(scores) < 0.4


def test_a_thousand_demonstrations_are_every_offline_walk_once_in_random_order(walks):
    every = sorted("".join("abcdefghijklmnopqrstu"[node] for node in walk) for walk in walks.walks)
    first, second = (walks.demonstrations(np.random.default_rng(seed), 2000) for seed in (0, 1))
    written = [prompt.text + text for prompt, text in first]
    assert sorted(written[:1000]) == sorted(written[1000:]) == every
    assert written[:1000] != written[1000:]
    assert first != second
    assert len(walks.demonstrations(np.random.default_rng(0), 7)) == 7
    assert walks.demonstrations(np.random.default_rng(0), 0) == []


def shortest(task, node):
    walk = [node]
    while walk[-1] != 0:
        walk.append(int(min(np.flatnonzero(task.edges[walk[-1]]), key=lambda n: task.distance[n])))
    return "".join("abcdefghijklmnopqrstu"[n] for n in walk)


def test_a_shortest_walk_is_worth_1_and_each_extra_node_costs_its_share(walks):
    for node in range(1, 21):
        walk = shortest(walks, node)
        reward, info, release = play(walks, walk[0], walk[1:])
        assert (reward, release.is_success, info["ended_by"]) == (1.0, True, "stop")
        assert release.token_rewards.tolist() == [0.0] * (len(walk) - 2) + [1.0]


def test_moves_are_judged_by_the_nodes_that_they_wasted(walks):
    seen = 0
    for start, wrong in np.add(np.argwhere(walks.edges[1:]), [1, 0]):
        wasted = 1 + int(walks.distance[wrong] - walks.distance[start])
        walk = shortest(walks, int(wrong))
        if wasted == 0 or len(walk) > 9:
            continue
        seen += 1
        reward, _, release = play(walks, "abcdefghijklmnopqrstu"[start], walk)
        budget = 9 - int(walks.distance[start])
        assert reward == pytest.approx(1 - wasted / budget)
        assert release.token_rewards[0] == pytest.approx(-wasted / budget)
        assert not release.token_rewards[1:-1].any()
    assert seen > 5


@pytest.mark.parametrize("text", ["", "a", "bbb", "uuuuuuuuu"])
def test_a_walk_that_is_none_or_does_not_arrive_is_worth_nothing(walks, text):
    start = next(n for n in range(1, 21) if not walks.edges[n, 0] and not walks.edges[n, 1] and not walks.edges[n, 20])
    reward, _, _ = play(walks, "abcdefghijklmnopqrstu"[start], text)
    assert reward == pytest.approx(0.0, abs=1e-6)


@given(start=st.integers(1, 20), text=st.text("abcdefghijklmnopqrstu", max_size=9))
def test_the_dense_reward_sums_to_the_optimality_and_blames_no_right_move(start, text):
    dense, scalar = RandomWalks(reward="dense"), RandomWalks()
    one, _, release = play(dense, "abcdefghijklmnopqrstu"[start], text)
    other, _, _ = play(scalar, "abcdefghijklmnopqrstu"[start], text)
    assert one == pytest.approx(other, abs=1e-5)
    assert (release.token_rewards[:-1] <= 0).all()


def test_graphs_differ_by_seed_and_wrong_forms_are_refused():
    assert not np.array_equal(RandomWalks(1).edges, RandomWalks(2).edges)
    assert np.array_equal(RandomWalks(1).edges, RandomWalks(1).edges)
    with pytest.raises(ValueError, match="'scalar' and 'dense'"):
        RandomWalks(reward="sparse")
    assert play_text(RandomWalks(), "b") is not None

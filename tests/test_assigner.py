import numpy as np
import pytest
from conftest import build_episode, play_text

from textgym import PromptTask, TextGenEnv
from textgym.checks import check_task
from textgym.credit import Assigned, LeaveOneOut, PrefixDifference, Uniform
from textgym.credit.assigner import by_weight, last_agent_token


def count(episodes):
    return [float(len(episode.text)) for episode in episodes]


def test_a_score_and_an_assigner_make_a_reward_function(letters):
    reward_fn = Assigned(count, Uniform())
    (paid,) = reward_fn([build_episode("abc")])
    assert np.asarray(paid).tolist() == [1.0, 1.0, 1.0]
    check_task(PromptTask(["a"], letters, reward_fn, max_new_tokens=5))


def test_a_prompt_task_takes_it_apart(letters):
    task = PromptTask(["a"], letters, Assigned(count, Uniform()), max_new_tokens=5)
    assert isinstance(task.assigner, Uniform)
    assert play_text(task, "abc").token_rewards.tolist() == [0.75] * 4  # end-of-text is a token too
    with pytest.raises(ValueError, match="leave assigner out"):
        PromptTask(["a"], letters, Assigned(count, Uniform()), assigner="last")


def test_who_scores_parts_asks_the_score_that_it_is_given_or_the_tasks_and_counts(letters):
    episodes = [build_episode("abc"), build_episode("a")]
    with pytest.raises(ValueError, match=r"LeaveOneOut has no score; give it one, or hand it to gym\.make"):
        LeaveOneOut()([3.0, 1.0], episodes)
    mine = LeaveOneOut()
    Assigned(count, mine)(episodes)
    assert mine.reward_calls == 3  # three texts of two letters; nothing is asked of a text without letters
    own = LeaveOneOut(lambda texts: [0.0] * len(texts))
    assert [paid.tolist() for paid in Assigned(count, own)(episodes)] == [[3.0, 3.0, -3.0], [1.0]]
    env = TextGenEnv(PromptTask(["a"], letters, count, max_new_tokens=5), assigner=mine)
    env.reset(seed=0)
    for token in [*letters.encode("ab"), letters.eos_token_id]:
        env.step(int(token))
    assert mine.reward_calls == 6
    assert env.rules.assigner.reward_calls == 6


def test_scores_that_are_none_are_refused():
    for given, message in (([1.0], r"gave 1 numbers for 2 texts"), ([float("nan")] * 2, r"score of 'a' is nan")):
        with pytest.raises(ValueError, match=message):
            PrefixDifference(lambda texts, given=given: given)([1.0], [build_episode("abc")])


def test_weights_that_are_none_are_refused_and_shares_too_small_for_float32_go_to_the_last_token():
    episode = build_episode("abc")
    for weights in ([0.0, 0.0, 0.0], [1.0, -1.0, 1.0], [np.nan, 1.0, 1.0], [np.inf, 1.0, 1.0]):
        with pytest.raises(ValueError, match="weights of episode 7"):
            by_weight(1.0, np.array(weights), episode)
    assert by_weight(2.0, np.array([1e-60, 1.0, 1.0]), episode).tolist() == [0.0, 1.0, 1.0]
    assert by_weight(3e-45, np.ones(3), episode).tolist() == pytest.approx([0.0, 0.0, 3e-45], abs=1e-50)


def test_a_text_without_a_token_of_the_agents_cannot_be_paid():
    with pytest.raises(ValueError, match="episode 7 has no token of the agent's"):
        last_agent_token(build_episode("ab", agent_mask=[False, False]))

import numpy as np
import pytest
from conftest import play_text as played

from textgym import TextTokenizer
from textgym.tasks.three_sentences import ThreeSentences


def paid(release):
    return {i: round(float(r), 4) for i, r in enumerate(release.token_rewards) if r}


ALL = " cats see. you find cats. we like big cats see."
NO_ECHO = " birds see. you find cats. we like big cats see."
NONE = " birds see. cats. cats."


def test_each_sentence_is_paid_on_its_full_stop_in_its_own_stream():
    release = played(ThreeSentences(), ALL)
    assert paid(release) == {2: 0.3333, 6: 0.3333, 12: 0.3333}
    assert release.streams.tolist() == [0] * 3 + [1] * 4 + [2] * 7
    assert set(release.criteria) == {"first", "second", "third"}
    assert release.is_success


def test_a_missed_share_goes_to_the_sentence_that_the_criterion_does_not_speak_of():
    # The first misses because of the third, so its share goes to the second.
    assert paid(played(ThreeSentences(), NO_ECHO)) == {6: 0.6667, 12: 0.3333}
    # All miss: first -> second, second -> third, third -> first.
    assert paid(played(ThreeSentences(), NONE)) == {2: 0.3333, 4: 0.3333, 6: 0.3333}


def test_an_even_split_divides_among_those_that_meet_theirs():
    task = ThreeSentences(split="even")
    assert paid(played(task, NO_ECHO)) == {6: 0.5, 12: 0.5}
    assert paid(played(task, NONE)) == {2: 0.3333, 4: 0.3333, 6: 0.3333}


@pytest.mark.parametrize("split", ["third_party", "even"])
def test_the_mass_is_constant_whatever_is_written(split):
    task = ThreeSentences(mass=2.0, split=split)
    for _, text in task.demonstrations(np.random.default_rng(0), 50):
        assert played(task, text).token_rewards.sum() == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("text", "eos", "token", "stream"),
    [
        (".", True, 0, 0),
        (" cats see", True, 2, 0),
        (" cats.", True, 2, 1),
        (" cats. see", True, 3, 1),
        (" cats see cats see cats.", True, 4, 0),  # the fifth word of a first sentence
        (" cats. cats. cats. cats.", True, 6, 2),
        (" cats. cats. cats." + " cats" * 4, False, None, None),
    ],
)
def test_another_form_pays_only_the_first_token_that_breaks_it(text, eos, token, stream):
    release = played(ThreeSentences(), text, eos)
    if token is None:
        assert release is None
        return
    assert paid(release) == {token: -1}
    assert release.streams[token] == stream
    assert not release.is_success


def test_a_text_that_is_cut_pays_its_last_token():
    task = ThreeSentences()
    task.max_new_tokens = 3
    assert paid(played(task, " cats see find", eos=False)) == {2: -1}


def test_score_and_metrics(make_episode):
    task = ThreeSentences()
    episodes = [make_episode(ALL), make_episode(NO_ECHO), make_episode("nothing")]
    assert task.score(episodes) == pytest.approx((3 + 2 + 0) / 9)
    assert task.metrics(episodes) == pytest.approx({"first": 1 / 3, "second": 2 / 3, "third": 2 / 3, "well_formed": 2 / 3})


def test_the_same_task_under_another_tokenizer(byte_bpe):
    release = played(ThreeSentences(tokenizer=TextTokenizer(byte_bpe, eos_token_id=0)), ALL)
    assert release.is_success
    assert release.token_rewards.sum() == pytest.approx(1.0)
    assert set(release.streams) == {0, 1, 2}


@pytest.mark.parametrize("arguments", [{"mass": 0.0}, {"split": "odd"}, {"max_words": (3, 3, 3)}, {"max_words": (1, 2)}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=r"mass|split|max_words"):
        ThreeSentences(**arguments)

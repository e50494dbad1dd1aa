import pytest

from textgym.names import check_arguments, did_you_mean, resolve_name
from textgym.tasks.number_duel import NumberDuel


def test_a_name_is_a_module_and_an_object_in_it():
    assert resolve_name("textgym.tasks.number_duel:NumberDuel") is NumberDuel


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere:Task", "no module 'nowhere'.*is its folder on PYTHONPATH"),
        ("textgym.tasks.number_duel:NumberDuell", "Did you mean 'NumberDuel'"),
        ("textgym", "'textgym' is not of the form 'module:Name'"),
        ("my_task.py:Task", r"write it without '\.py'"),
    ],
)
def test_unknown_names_say_what_is_missing(name, said):
    with pytest.raises(ValueError, match=said):
        resolve_name(name)


def test_a_call_that_would_not_fit_says_what_is_taken():
    check_arguments(NumberDuel, masses=(1.0, 0.0))
    with pytest.raises(
        ValueError, match=r"NumberDuel: got an unexpected keyword .*Did you mean 'masses'\?; its arguments are masses"
    ):
        check_arguments(NumberDuel, mases=(1, 0))
    check_arguments(dict)  # a callable that does not say what it takes


def test_the_end_of_a_message_has_the_name_that_is_like_it_or_nothing():
    assert did_you_mean("number_dual", ["number_duel", "copying"]) == ". Did you mean 'number_duel'?"
    assert did_you_mean("xyz", ["number_duel"]) == ""

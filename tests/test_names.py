import pytest

from textgym import PromptTask
from textgym.integrations.reward_functions import trl_rewards
from textgym.names import check_arguments, check_reward_function, did_you_mean, resolve_name
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


def of_trl(prompts, completions, **columns):
    return [1.0] * len(completions)


def of_trl_by_name(completions, **kwargs):
    return [1.0] * len(completions)


def of_trl_with_columns(*, completions, answer):
    return [1.0] * len(completions)


def of_trlx(samples, prompts, outputs, tokenizer, **columns):
    return [1.0] * len(samples)


def of_two(episodes, scale):
    return [scale] * len(episodes)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (of_trl, r"reward_fn is of_trl\(prompts, completions, \*\*columns\), and is called with one .*trl_rewards\(function\)"),
        (of_trl_by_name, r"one of TRL's: wrap it, textgym\.integrations\.reward_functions\.trl_rewards"),
        (of_trl_with_columns, "TRL's"),
        (of_trlx, r"trlX's: wrap it, textgym\.integrations\.reward_functions\.trlx_rewards\(function, tokenizer\)"),
        (of_two, r"of_two\(episodes, scale\), and is called with one argument, a list of episodes$"),
    ],
)
def test_reward_functions_of_other_libraries_are_told_their_adapter(letters, function, said):
    with pytest.raises(ValueError, match=said):
        PromptTask(["a"], letters, function)
    with pytest.raises(ValueError, match="criterion 'x' is " + function.__name__):
        PromptTask(["a"], letters, {"x": function})


def test_reward_functions_of_episodes_may_name_their_argument_as_they_like():
    class Judge:
        def __call__(self, samples, scale=1.0):
            return [scale] * len(samples)

    for function in (Judge(), lambda completions: [], lambda *episodes: [], len, trl_rewards(of_trl), lambda e, **options: []):
        check_reward_function(function, "reward_fn")

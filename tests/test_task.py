import gymnasium as gym
import numpy as np
import pytest
from conftest import play_text
from gymnasium.envs.registration import EnvSpec

import textgym
from textgym import Prompt, PromptTask, Task, resolve_task
from textgym.tasks.number_duel import NumberDuel


class Tiny(Task):
    """A task as a user writes it."""

    def __init__(self, tokenizer=None, mass=1.0):
        self.tokenizer = tokenizer or textgym.symbol_tokenizer(["a", "b"])
        self.mass = mass

    def sample(self, rng):
        return Prompt("a")

    def rewards(self, episodes):
        return [self.mass] * len(episodes)


@pytest.mark.parametrize(
    "name", ["number_duel", "textgym/NumberDuel-v0", "TextGen-v0", "textgym:TextGen-v0", "textgym.tasks.number_duel:NumberDuel"]
)
def test_every_kind_of_name_gives_the_same_task(name):
    task = resolve_task(name, masses=(1.0, 0.0))
    assert isinstance(task, NumberDuel)
    assert task.masses == (1.0, 0.0)


def test_classes_factories_and_objects_are_tasks():
    assert resolve_task(Tiny, mass=2.0).mass == 2.0
    assert resolve_task(lambda **kwargs: Tiny(**kwargs), mass=3.0).mass == 3.0
    task = Tiny()
    assert resolve_task(task) is task
    assert resolve_task(f"{__name__}:Tiny").mass == 1.0


def test_unknown_names_say_what_there_is():
    with pytest.raises(ValueError, match="Did you mean 'number_duel'"):
        resolve_task("number_dual")


def test_objects_that_are_no_tasks_say_what_they_lack():
    class NoRewards:
        tokenizer = None

    with pytest.raises(TypeError, match=r"lacks .*rewards.*textgym\.Task"):
        resolve_task(NoRewards())
    with pytest.raises(TypeError, match="takes no arguments"):
        resolve_task(Tiny(), mass=2.0)


def test_an_object_with_all_members_needs_no_base_class():
    class Structural:
        tokenizer = textgym.symbol_tokenizer(["a"])
        max_prompt_tokens, max_new_tokens, stop, length_limit, weights, causal_streams = 1, 2, (), "terminate", {}, True
        max_response_tokens = max_turn_tokens = None
        turn_stop = ()
        assigner = None

        def sample(self, rng): ...
        def rewards(self, episodes): ...
        def streams(self, episodes): ...
        def ended(self, prompt, ids): ...
        def reply(self, episode): ...
        def success(self, episode): ...
        def score(self, episodes): ...
        def metrics(self, episodes): ...
        def demonstrations(self, rng, count): ...

    assert isinstance(resolve_task(Structural()), Structural)


def test_prompt_task_checks_its_prompts_at_construction(letters):
    with pytest.raises(ValueError, match=r"prompt 1 has 4 tokens but max_prompt_tokens is 2: 'abab'"):
        PromptTask(["a", "abab"], letters, lambda e: [0.0] * len(e), max_prompt_tokens=2)
    with pytest.raises(ValueError, match="at least one"):
        PromptTask([], letters, lambda e: [])
    with pytest.raises(ValueError, match="at least one"):
        PromptTask("a prompt", letters, lambda e: [])
    with pytest.raises(ValueError, match="a int"):
        PromptTask([3], letters, lambda e: [])


def test_prompt_task_calls_what_the_user_gave(letters, make_episode):
    task = PromptTask(
        ["a", Prompt("b", metadata={"answer": 1})],
        letters,
        lambda episodes: [2.0] * len(episodes),
        lambda episodes: [[1] * len(e.ids) for e in episodes],
        success_fn=lambda episode: episode.text == "ab cd",
        demonstrations=[("a", "b")],
    )
    episode = make_episode()
    assert task.max_prompt_tokens == 1
    assert task.rewards([episode]) == [2.0]
    assert task.streams([episode]) == [[1] * 5]
    assert task.success(episode)
    assert task.score([episode, make_episode("x")]) == 0.5
    rng = np.random.default_rng(0)
    assert {task.sample(rng).text for _ in range(20)} == {"a", "b"}
    assert [text for _, text in task.demonstrations(rng, 3)] == ["b"] * 3
    assert PromptTask(["a"], letters, lambda e: []).demonstrations(rng, 3) == []


def test_one_rule_says_what_no_task_means(letters):
    assert isinstance(resolve_task(None), NumberDuel)
    given = {"prompts": ["a"], "tokenizer": letters, "reward_fn": lambda e: []}
    assert isinstance(resolve_task("TextGen-v0", **given), PromptTask)
    for wrong in ("nomodule:TextGen-v0", ".x:Y"):
        with pytest.raises(ValueError, match="there is no module"):
            resolve_task(wrong)


def test_prompts_without_tokens_are_refused():
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ValueError, match="' ' encodes to no token"):
        PromptTask([" ", "a"], textgym.TextTokenizer(backend, eos_token_id=0), lambda e: [])


def test_a_task_without_rewards_says_so():
    class Forgot(Task):
        tokenizer = textgym.symbol_tokenizer(["a"])

        def sample(self, rng):
            return Prompt("a")

    with pytest.raises(TypeError, match="lacks rewards"):
        resolve_task(Forgot())


def test_typical_slips_are_named(letters):
    with pytest.raises(ValueError, match="reward_fn is 5; give a function of a list of episodes"):
        PromptTask(["a"], letters, 5)
    with pytest.raises(ValueError, match="'f' is not of the form 'module:Name'"):
        PromptTask(["a"], letters, "f")
    with pytest.raises(ValueError, match="reply_fn is 7; give a function of one episode"):
        PromptTask(["a"], letters, lambda e: [], reply_fn=7)
    with pytest.raises(ValueError, match=r"NumberDuel: got an unexpected keyword argument 'mases'\. Did you mean 'masses'"):
        resolve_task("number_duel", mases=(1, 0))


def small_tokenizer():
    return textgym.symbol_tokenizer(list("ab"))


def ones(episodes):
    return [1.0] * len(episodes)


def test_functions_and_tokenizers_can_be_named_so_that_specs_are_json():
    env = gym.make(
        "TextGen-v0", prompts=["a"], tokenizer="test_task:small_tokenizer", reward_fn="test_task:ones", max_new_tokens=2
    )
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    again.reset(seed=0)
    assert again.step(1)[1] == 1.0
    assert PromptTask(["a"], textgym.symbol_tokenizer(["a"]), ones, score_fn="test_task:len_of").score([1, 2]) == 2.0


def len_of(episodes):
    return float(len(episodes))


def test_a_mapping_of_reward_functions_makes_criteria():
    task = PromptTask(["a"], small_tokenizer(), {"one": ones, "two": lambda e: [2.0] * len(e)}, weights={"two": 0.5})
    release = play_text(task, "ab")
    assert dict(release.criteria) == {"one": 1.0, "two": 2.0}
    assert float(release.token_rewards.sum()) == 2.0
    assert dict(release.ledger.accounts) == {"weight/two": 1.0}


def test_prompts_can_be_conversations(chat_tokenizer):
    messages = [{"role": "user", "content": "hello"}]
    text, ids = textgym.TextTokenizer(chat_tokenizer).chat(messages)
    task = PromptTask(
        [messages, "12"], chat_tokenizer, lambda episodes: [0.0] * len(episodes), demonstrations=[(messages, "99")]
    )
    assert task.prompts[0].text == text == "<s><|turn|>user: hello<|turn|>assistant: "
    assert task.prompts[0].ids.tolist() == ids.tolist()
    assert task.max_prompt_tokens == len(ids)
    assert task.demonstrations(np.random.default_rng(0), 1)[0][0].text == text
    env = textgym.TextGenEnv(task)
    obs, _ = env.reset(seed=0, options={"prompt": messages})
    assert obs[: len(ids)].tolist() == ids.tolist()


def test_one_conversation_given_as_all_prompts_is_named():
    with pytest.raises(ValueError, match="give a Prompt, a text, or a list of messages"):
        PromptTask([{"role": "user", "content": "a"}], textgym.symbol_tokenizer(["a"]), len)

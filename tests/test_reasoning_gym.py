"""reasoning-gym: whole datasets played, and its own scorer, called past the task, agrees to the last digit."""

import sys

import gymnasium as gym
import numpy as np
import pytest
import reasoning_gym
from reasoning_gym.utils import extract_answer

import textgym
from textgym.tasks.reasoning_gym import ReasoningGym

DATASETS = ["chain_sum", "letter_counting", "spell_backward", "simple_equations", "word_sorting"]


def play(task, response, seed=0):
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(seed=seed)
    for token in [*env.rules.tokenizer.encode(response).tolist(), env.rules.eos_token_id]:
        _, reward, terminated, _, info = env.step(token)
        if terminated:
            break
    assert terminated
    return reward, info, textgym.release(info)


def alter(text, rng, letters):
    """Leave a text as it is, or take out, put in or change a character or two."""
    characters = list(text)
    for _ in range(int(rng.integers(3))):
        at = int(rng.integers(len(characters) + 1))
        characters[at : at + int(rng.integers(2))] = [letters[int(rng.integers(len(letters)))]][: int(rng.integers(2))]
    return "".join(characters)


def agreement(dataset, answer, count):
    """Play ``count`` responses; compare what they earned with what the dataset says when it is asked directly."""
    task = ReasoningGym(dataset, size=50, seed=3, answer=answer, max_new_tokens=200)
    own = reasoning_gym.create_dataset(dataset, size=50, seed=3)
    entries = {own[i]["question"]: own[i] for i in range(50)}
    rng = np.random.default_rng(0)
    letters = sorted({character for entry in entries.values() for character in entry["answer"]})
    scores = []
    for seed in range(count):  # the prompt is drawn from the seed alone
        entry = entries[play(task, "", seed)[1]["prompt"]]
        asked = alter(entry["answer"], rng, letters)
        response = {"whole": asked, "marker": f"Answer: {asked}", "tags": f"<answer>{asked}</answer>"}[answer]
        reward, info, _ = play(task, response, seed)
        written = info["text"]
        found = {"whole": written.strip(), "marker": asked.strip(), "tags": extract_answer(written)}[answer]
        assert reward == np.float32(own.score_answer(found, entry)), (dataset, response)
        scores.append(reward)
    return scores


@pytest.mark.parametrize("answer", ["whole", "marker", "tags"])
@pytest.mark.parametrize("dataset", DATASETS)
def test_the_datasets_own_scorer_agrees(dataset, answer):
    scores = agreement(dataset, answer, 8)
    assert 1.0 in scores and min(scores) < 1.0


@pytest.mark.parametrize("dataset", DATASETS)
@pytest.mark.parametrize("reward", ["scalar", "dense"])
def test_datasets_keep_the_contract(dataset, reward):
    textgym.checks.check_task("reasoning_gym", dataset=dataset, reward=reward, size=20)


def test_dense_rewards_say_which_tokens_made_the_answer_and_which_spoiled_it():
    task = ReasoningGym(reward="dense", max_new_tokens=40, answer="tags")
    entry = task.sample(np.random.default_rng()).metadata["entry"]
    env = textgym.TextGenEnv(task, info_text=True)
    env.reset(options={"prompt": task._prompt(entry["question"], entry)})
    for token in task.tokenizer.encode(f"<answer>{entry['answer']}</answer>").tolist():
        _, reward, _, _, info = env.step(token)
    paid = textgym.release(info).token_rewards
    assert (reward, paid[-1], np.count_nonzero(paid)) == (1.0, 1.0, 1)  # the closing tag completed it

    task = ReasoningGym("chain_sum", reward="dense", max_new_tokens=40)
    entry = next(entry for entry in task.entries if entry["answer"] == "5")
    env = textgym.TextGenEnv(task)
    env.reset(options={"prompt": task._prompt(entry["question"], entry)})
    for token in [*task.tokenizer.encode("5++").tolist(), 1]:
        _, reward, _, _, info = env.step(token)
    paid = textgym.release(info).token_rewards
    # chain_sum gives an answer that holds the right one their lengths' quotient: 1, 1 / 2, 1 / 3.
    assert paid == pytest.approx([1.0, -1 / 2, -1 / 6, 0.0])


def test_a_response_without_an_answer_is_scored_as_none():
    task = ReasoningGym(answer="marker", max_new_tokens=40)
    assert task.find("no such thing") is None
    assert task.find("Answer: 3 Answer:  4 ") == "4"
    assert play(task, "3")[0] == 0.0
    assert task.metrics([]) == {"answered": 0.0}


def test_a_scorer_that_raises_stops_the_run_or_is_counted():
    with pytest.raises(OverflowError) as raised:
        play(ReasoningGym("coin_flip", size=5, tokenizer=letters(), max_new_tokens=20), "-1e999999")
    assert "on_error='zero'" in " ".join(raised.value.__notes__)
    task = ReasoningGym("coin_flip", size=5, tokenizer=letters(), max_new_tokens=20, on_error="zero")
    assert play(task, "-1e999999")[0] == 0.0
    envs = textgym.TextGenVectorEnv(1, task, autoreset_mode="Disabled", keep_episodes=True)
    envs.reset(seed=0)
    for token in [*task.tokenizer.encode("-1e999999"), 1]:
        envs.step(np.array([token]))
    assert task.metrics([episode for episode, _ in envs.take_episodes()]) == {"answered": 1.0, "unscored": 1.0}


def letters():
    return textgym.symbol_tokenizer([chr(i) for i in range(32, 127)] + ["\n"])


def test_a_dataset_without_answers_needs_a_length_and_has_no_demonstrations():
    with pytest.raises(ValueError, match="give max_new_tokens"):
        ReasoningGym("graph_color", size=5)
    task = ReasoningGym("graph_color", size=5, max_new_tokens=30)
    assert task.demonstrations(np.random.default_rng(0), 3) == []
    textgym.checks.check_task(task)


def test_questions_are_written_by_a_template_or_as_a_chat(chat_tokenizer):
    task = ReasoningGym(size=3, template="Q: {question}\nA:")
    assert all(prompt.text.startswith("Q: State") and prompt.text.endswith("\nA:") for prompt in task.prompts)
    chat_tokenizer.clean_up_tokenization_spaces = False
    task = ReasoningGym(size=3, chat=True, tokenizer=chat_tokenizer)
    assert all(prompt.text.startswith("<s><|turn|>user: ") for prompt in task.prompts)
    textgym.checks.check_task(task)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "chain_summ"}, "Did you mean 'chain_sum'"),
        ({"foo": 3}, "unexpected keyword argument 'foo'"),
        ({"min_terms": 0}, "min_terms must be positive"),
        ({"answer": "last"}, "'whole', 'marker', 'tags'"),
        ({"template": "Q:"}, "give a template"),
        ({"chat": True}, "no chat template"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ReasoningGym(**arguments)


def test_without_reasoning_gym_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ValueError, match=r"textgym\[reasoning\]"):
        ReasoningGym()


def test_the_id_takes_a_dataset_and_its_arguments():
    env = gym.make("textgym/ReasoningGym-v0", dataset="chain_sum", size=7, max_terms=2)
    task = env.unwrapped.rules.task
    assert len(task.entries) == 7
    assert all(entry["metadata"]["num_terms"] == 2 for entry in task.entries)

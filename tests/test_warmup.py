import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic, warm_up
from textgym_agents.warmup import demonstration_batch

from textgym import Prompt, PromptTask
from textgym.rules import Rules


def prepare(letters, demonstrations, **kwargs):
    task = PromptTask(["a"], letters, lambda e: [0.0] * len(e), demonstrations=demonstrations, **kwargs)
    return ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), task


def test_the_likelihood_of_the_demonstrations_and_their_end_rises(letters):
    model, task = prepare(letters, [("a", "bcd"), ("a", "ef")])
    losses = []
    last = warm_up(model, task, steps=60, batch=8, callback=lambda step, loss: losses.append(loss))
    assert len(losses) == 60
    assert last == losses[-1] < 0.5 < losses[0]
    ids = torch.tensor([[2, 3, 4, 5]])
    with torch.no_grad():
        after = model.lm(ids).logits[0, -1].softmax(-1)
    assert after[letters.eos_token_id] > 0.8  # "bcd" is over
    assert not model.value_head.weight.any()


def test_the_same_seed_draws_the_same_demonstrations(letters):
    demonstrations = [("a", c) for c in "bcdefgh"]
    assert len({warm_up(*prepare(letters, demonstrations), steps=3, batch=2, seed=s) for s in (0, 0, 1)}) == 2


class Counted(PromptTask):
    """Remembers how many demonstrations each draw asked for; gives its four in order."""

    def demonstrations(self, rng, count):
        self.asked = [*getattr(self, "asked", []), count]
        return [(Prompt("a"), c) for c in "bcde"][:count]


def test_a_draw_serves_several_steps_each_with_its_part_of_it(letters, monkeypatch):
    task = Counted(["a"], letters, lambda e: [0.0] * len(e))
    batches = []
    monkeypatch.setattr(
        "textgym_agents.warmup.demonstration_batch",
        lambda examples, rules: batches.append(examples) or demonstration_batch(examples, rules),
    )
    warm_up(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), task, steps=5, batch=2, draw=4)
    assert task.asked == [4, 4, 4]
    assert ["".join(text for _, text in batch) for batch in batches] == ["bc", "de", "bc", "de", "bc"]
    with pytest.raises(ValueError, match="draw is 5; it must be a multiple of the batch, 2"):
        warm_up(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), task, steps=1, batch=2, draw=5)


def test_demonstrations_that_do_not_fit_are_named(letters):
    model, task = prepare(letters, [("a", "bcdefg")], max_new_tokens=4)
    with pytest.raises(
        ValueError, match="demonstration has 6 tokens with its end, 6 of them the agent's, but max_new_tokens is 4"
    ):
        warm_up(model, task, steps=1)
    model, task = prepare(letters, [("abab", "b")], max_prompt_tokens=2)
    with pytest.raises(ValueError, match="demonstration prompt has 4 tokens"):
        warm_up(model, task, steps=1)


def test_a_task_without_demonstrations_is_refused(letters):
    model, task = prepare(letters, [])
    with pytest.raises(ValueError, match="has no demonstrations"):
        warm_up(model, task, steps=1)


def test_a_stop_string_closes_a_demonstration(letters):
    model, task = prepare(letters, [("a", "b.")], max_new_tokens=2, stop=["."])
    warm_up(model, task, steps=1)


def test_replies_in_demonstrations_are_not_learned(letters):
    task = PromptTask(
        ["a"], letters, lambda e: [0.0], reply_fn=lambda e: None, turn_stop=["."], max_new_tokens=5, max_response_tokens=9
    )
    examples = [(Prompt("a"), ["b.", "cc", "d"]), (Prompt("a"), "b.")]
    ids, prompt_lengths, mask = demonstration_batch(examples, Rules(task))
    assert prompt_lengths.tolist() == [1, 1]
    assert mask.tolist() == [[True, True, False, False, True, True], [True, True, False, False, False, False]]
    assert ids[0].tolist() == [2, 3, 11, 4, 4, 5, 1]  # end-of-text after the last message, which no stop string ends
    with pytest.raises(ValueError, match="6 of them the agent"):
        demonstration_batch([(Prompt("a"), ["bb.", "c", "ddd"])], Rules(task))

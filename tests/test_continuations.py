import copy

import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic, CausalLMPolicy, Step
from textgym_agents.continuations import PolicyContinuations

import textgym
from textgym import PromptTask
from textgym.assign import TaskScore
from textgym.credit import MonteCarlo, prefix
from textgym.exact import Enumeration
from textgym.probes import play_random
from textgym.rules import RUNNING, Rules


class Table:
    """A tabular policy behind the protocol of policies: it reads the row of each text."""

    def __init__(self, texts, logits):
        self.texts, self.policy, self.rng = texts, texts.policy(logits), np.random.default_rng(0)

    def reset_slots(self, slots):
        pass

    def act(self, obs, slots):
        rows = [self.texts._row_of[tuple(text[text >= 0].tolist())] for text in obs]
        tokens = [self.rng.choice(len(self.policy[row]), p=self.policy[row]) for row in rows]
        blank = torch.zeros(len(rows))
        return Step(torch.tensor(tokens), blank, blank)


def test_texts_begin_as_they_stood_and_end_as_the_task_ends_them(letters):
    task = PromptTask(["a", "bcd"], letters, lambda e: [0.0] * len(e), max_new_tokens=8, stop=["h"])
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 3)
    go_on = PolicyContinuations(policy, task, 3)
    whole = [sampled.episode for sampled in play_random(Rules(task), 8, 1) if len(sampled.episode.ids) > 3]
    begun = [prefix(episode, last) for episode in whole for last in (0, 2)]
    continued = go_on(begun, 5)
    assert [len(texts) for texts in continued] == [5] * len(begun)
    for start, texts in zip(begun, continued, strict=True):
        for text in texts:
            assert text.ids[: len(start.ids)].tolist() == start.ids.tolist()
            assert text.ended_by in ("eos", "stop", "length")
            assert len(text.ids) <= 8
            assert text.prompt is start.prompt
    assert len({text.ids.tobytes() for text in continued[0]}) > 1
    assert copy.deepcopy(go_on) is go_on
    with pytest.raises(ValueError, match="has ended; nothing can follow it"):
        go_on([whole[0]], 1)
    with pytest.raises(ValueError, match="num_slots is 0"):
        PolicyContinuations(policy, task, 0)


def test_the_mean_of_the_continuations_comes_near_the_exact_value_across_a_reply():
    texts = Enumeration("probe_reply")
    logits = texts.random_logits(0)
    go_on = PolicyContinuations(Table(texts, logits), "probe_reply", 16)
    assigner = MonteCarlo(TaskScore(texts.rules.task), go_on, k=800)
    own = texts.credit(texts.releases(), "whole_stream")
    chance = texts.probabilities(logits)
    for number, episode in enumerate(texts.episodes):
        alike = texts.actions[:, 0] == texts.actions[number, 0]
        value = (chance * own[:, 0])[alike].sum() / chance[alike].sum()
        (paid,) = assigner([float(own[number, 0])], [episode])
        assert paid[0] == pytest.approx(value, abs=0.06)
        assert paid.sum() == pytest.approx(own[number, 0])


def test_an_environment_uses_it_while_it_plays(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    options = {
        "prompts": ["a"],
        "tokenizer": letters,
        "reward_fn": lambda e: [float(len(x.text)) for x in e],
        "max_new_tokens": 5,
    }
    go_on = PolicyContinuations(CausalLMPolicy(model, 4, seed=1), PromptTask(**options), 4)
    assigner = MonteCarlo(continuations=go_on, k=2)
    env = textgym.TextGenEnv(None, assigner=assigner, **options)
    env.reset(seed=0)
    info = {}
    for token in [*letters.encode("abc"), letters.eos_token_id]:
        *_, info = env.step(int(token))
    assert float(textgym.release(info).token_rewards.sum()) == pytest.approx(3.0, abs=1e-6)
    assert assigner.reward_calls == 6


def test_texts_end_at_the_environments_own_limit_and_keep_to_its_action_masks(letters):
    """Continued past what the environment allows, texts would be judged that it never ends with."""
    task = PromptTask(["a"], letters, lambda e: [float(len(x.ids)) for x in e], max_new_tokens=8)
    task.token_masks = np.isin(np.arange(len(letters)), letters.encode("abc"))  # so that only the limit ends a text
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 2)
    go_on = PolicyContinuations(policy, task, 2, max_episode_steps=3)
    assigner = MonteCarlo(continuations=go_on, k=8)
    env = textgym.TextGenEnv(task, max_episode_steps=3, assigner=assigner)
    env.reset(seed=0)
    info = {}
    for token in letters.encode("abc"):
        *_, info = env.step(int(token))
    assert textgym.release(info).token_rewards.tolist() == [3.0, 0.0, 0.0]
    begun = Rules(task).episode(task.prompts[0], letters.encode("a"), RUNNING, 0)
    (continued,) = go_on([begun], 20)
    assert {*"".join(text.text for text in continued)} == {*"abc"}

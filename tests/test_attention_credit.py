import copy

import numpy as np
import pytest
import torch
from agent_kit import build_lm
from conftest import play_text
from textgym_agents.attention_credit import AttentionWeights

from textgym import PromptTask
from textgym.credit import Attention
from textgym.probes import play_random
from textgym.rules import Rules


def texts(letters, count=5):
    rules = Rules(PromptTask(["a", "bcd"], letters, lambda e: [0.0] * len(e), max_new_tokens=8))
    return [sampled.episode for sampled in play_random(rules, count, 0)]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma2"])
def test_weights_are_those_of_the_last_position_alone_or_in_a_batch(letters, family):
    model = build_lm(family, len(letters))
    episodes, kind = texts(letters), model.config._attn_implementation
    weights = AttentionWeights(model, batch=2)
    together = weights(episodes)
    assert model.config._attn_implementation == kind
    eager = copy.deepcopy(model)
    eager.set_attn_implementation("eager")
    for episode, mine in zip(episodes, together, strict=True):
        assert mine.shape == episode.ids.shape
        assert (mine >= 0).all() and mine.sum() <= 1 + 1e-6
        np.testing.assert_allclose(weights([episode])[0], mine, atol=1e-6)
        ids = np.concatenate([episode.prompt.ids, episode.ids])
        seen = eager(torch.tensor(ids)[None], output_attentions=True).attentions[-1][0, :, -1].mean(0)
        np.testing.assert_allclose(mine, seen[-len(episode.ids) :].detach().numpy(), atol=1e-6)


def test_a_task_pays_by_where_its_model_looks(letters):
    weights = AttentionWeights(build_lm("gpt2", len(letters)))
    task = PromptTask(["a"], letters, lambda e: [2.0] * len(e), assigner=Attention(weights, beta=0.75))
    paid = play_text(task, "abc").token_rewards
    assert paid.sum() == pytest.approx(2.0)
    assert (paid > 0).all() and paid[-1] >= 0.5
    assert copy.deepcopy(weights) is weights
    with pytest.raises(ValueError, match="batch is 0"):
        AttentionWeights(weights.model, batch=0)

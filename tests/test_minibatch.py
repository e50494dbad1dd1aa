import pytest
import torch
from agent_kit import CONTEXT, build_lm, build_rollout
from textgym_agents import ActorCritic
from textgym_agents.minibatch import Passes, minibatches


def test_every_episode_is_in_one_minibatch_of_each_epoch():
    generator = torch.Generator().manual_seed(0)
    parts = list(minibatches(10, 4, 2, 10, generator))
    assert [len(part) for part in parts] == [4, 3, 3, 4, 3, 3]
    for epoch in (parts[:3], parts[3:]):
        assert sorted(torch.cat(epoch).tolist()) == list(range(10))
    assert torch.cat(parts[:3]).tolist() != torch.cat(parts[3:]).tolist()


def test_processes_that_dropped_episodes_take_as_many_steps_as_others_F31():
    counts = {kept: len(list(minibatches(kept, 4, 3, 16, torch.Generator().manual_seed(0)))) for kept in (4, 9, 16, 19)}
    assert set(counts.values()) == {12}
    with pytest.raises(ValueError, match="3 of 16 episodes are left, fewer than the 4 minibatches"):
        next(minibatches(3, 4, 1, 16, torch.Generator()))


@pytest.mark.parametrize("how", ["packed", "sorted", "padded"])
def test_a_whole_collection_is_evaluated_as_the_model_does(letters, how):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    torch.nn.init.ones_(model.value_head.weight)
    played = build_rollout(ids=torch.tensor([[2, 3, 4, 5], [6, 7, 0, 0]]))
    with torch.no_grad():
        expected = model(played.ids, played.prompt_lengths, played.agent_mask, 0.5)
    for max_tokens in (4, 100):
        logprobs, values = Passes(how, max_tokens, 0.5).evaluate(model, played, 2)
        assert torch.allclose(logprobs, expected[0], atol=1e-5)
        assert torch.allclose(values, expected[1], atol=1e-5)
        assert not logprobs[~played.agent_mask].any()

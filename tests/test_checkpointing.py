import copy

import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic
from textgym_agents.checkpointing import checkpoint_layers


@pytest.mark.parametrize("shape", ["gpt2", "gemma3_text"])
def test_the_gradient_is_the_same_and_less_is_kept(letters, shape):
    lm = build_lm(shape, len(letters))  # GPT-2's default config has dropout, so train mode would show
    ids = torch.randint(len(letters), (2, 12), generator=torch.Generator().manual_seed(0))
    inputs = ids, torch.tensor([2, 2]), torch.ones(2, 10, dtype=torch.bool)
    found = []
    for layers in (False, True):
        model = ActorCritic(copy.deepcopy(lm), letters, CONTEXT)
        if layers:
            checkpoint_layers(model.lm)
        kept = []

        def keep(tensor, kept=kept):
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logprobs, _, _ = model(*inputs)
        logprobs.sum().backward()
        assert not any(module.training for module in model.lm.modules())
        found.append((logprobs.detach(), sum(kept), [p.grad for p in model.lm.parameters()]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1] < 0.7 * found[0][1]
    assert all(torch.equal(a, b) for a, b in zip(found[0][2], found[1][2], strict=True))


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="Linear has no layers that can be checkpointed; leave gradient_checkpointing off"):
        checkpoint_layers(torch.nn.Linear(1, 1))

import copy

import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic, checkpointing
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


def test_a_copy_of_a_checkpointed_model_stays_as_it_is_while_the_model_learns(letters):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    checkpoint_layers(model)
    reference = model.frozen_reference()
    inputs = torch.arange(2, 12)[None], torch.tensor([2]), torch.ones(1, 8, dtype=torch.bool)
    before, _, _ = reference(*inputs)
    with torch.no_grad():
        for parameter in model.lm.parameters():
            parameter.mul_(0.5)
    assert torch.equal(reference(*inputs)[0], before)
    assert not torch.allclose(model(*inputs)[0], before)


def test_checkpointing_twice_is_checkpointing_once(letters, monkeypatch):
    model = ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT)
    calls = []
    run = checkpointing.checkpoint
    monkeypatch.setattr(checkpointing, "checkpoint", lambda *args, **kwargs: calls.append(1) or run(*args, **kwargs))
    for _ in range(2):
        checkpoint_layers(model)
    model(torch.arange(2, 12)[None], torch.tensor([2]), torch.ones(1, 8, dtype=torch.bool))[0].sum().backward()
    assert len(calls) == 2  # once for each of two layers


def test_a_model_without_such_layers_is_refused():
    with pytest.raises(ValueError, match="Linear has no layers that can be checkpointed; leave gradient_checkpointing off"):
        checkpoint_layers(torch.nn.Linear(1, 1))

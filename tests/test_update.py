import pytest
import torch
from textgym_agents.bench.load import Load, LoadConfig, make_model
from textgym_agents.bench.update import OurUpdate, PaddedUpdate, padded_loss, peak_memory

SMALL = LoadConfig(episodes=6, mean_length=5.0, max_length=12, vocab_size=40, layers=1, width=16, heads=2)


def test_the_padded_loss_sees_the_log_probs_that_the_policy_sampled_with():
    load = Load(SMALL)
    model = make_model(SMALL, load)
    update = PaddedUpdate(model, load, 3, 3, seed=0)
    rollout = update.rollout
    rows = torch.tensor([4, 1, 2])
    width = int(rollout.num_tokens[rows].max())
    mask = rollout.agent_mask[rows, :width]
    logprobs, values, _ = model(rollout.ids[rows], rollout.prompt_lengths[rows], mask)
    ratio = (logprobs - rollout.logprobs[rows, :width])[mask].exp()
    advantage = update.advantages[rows, :width][mask]
    clipped = torch.stack([ratio * advantage, ratio.clamp(0.8, 1.2) * advantage]).amin(0)
    expected = -clipped.mean() + 0.1 * ((values[mask] - advantage) ** 2).mean()
    torch.testing.assert_close(padded_loss(model, rollout, rows, update.advantages), expected)


def test_both_learn_from_every_episode():
    load = Load(SMALL)
    for kind in (OurUpdate, PaddedUpdate):
        model = make_model(SMALL, load)
        update = kind(model, load, 3, 2, 0)
        before = model.lm.get_input_embeddings().weight.clone()
        samples, seconds = update.run()
        assert samples == 6
        assert seconds > 0
        assert not torch.equal(before, model.lm.get_input_embeddings().weight)
        update.close()


def test_peak_memory_counts_what_is_held_at_once():
    def work():
        for _ in range(3):  # one after another: 4,000 bytes at a time, and 4,000 that stay
            torch.zeros(1000)
        return torch.zeros(1000) + torch.zeros(1000)

    assert peak_memory(work) == pytest.approx(12_000, abs=600)

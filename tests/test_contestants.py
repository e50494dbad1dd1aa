import numpy as np
import pytest
import torch
from textgym_agents.bench.contestants import (
    BestThreads,
    ContinuousBatching,
    DecodeFloor,
    ForcedLengths,
    InProcess,
    _steady_columns,
    batches,
    carried_over,
    drained,
    make_envs,
    shares,
)
from textgym_agents.bench.load import Load, LoadConfig, make_model
from textgym_agents.collector import collect

SMALL = LoadConfig(episodes=9, mean_length=5.0, max_length=12, vocab_size=40, layers=1, width=16, heads=2)


@pytest.fixture(params=["gpt2", "llama"])
def small(request):
    config = LoadConfig(**{**vars(SMALL), "shape": request.param})
    load = Load(config)
    return make_model(config, load), load


def test_all_who_play_the_load_to_its_end_write_exactly_its_tokens(small):
    model, load = small
    continuous = ContinuousBatching(model.lm, load, 4, seed=0)
    for contestant in (drained(model, load, 4, 0), batches(model.lm, load, 4), continuous):
        assert contestant.run()[0] == load.useful
        contestant.close()
    assert model.lm.config._attn_implementation == "sdpa"  # continuous batching changed a model of its own


def test_forced_texts_end_at_their_targets_and_nowhere_else(small):
    model, load = small
    policy = ForcedLengths(model, 4, load)
    rollout = collect(make_envs(load, 4, 0), policy, 9)
    load.handed_out = 0
    for ids, prompt, tokens in zip(rollout.ids, rollout.prompt_lengths, rollout.num_tokens, strict=True):
        response = ids[prompt : prompt + tokens].tolist()
        assert len(response) == load.target(ids[:prompt].tolist())
        assert response.index(load.tokenizer.eos_token_id) == len(response) - 1
    assert policy.sampled == load.useful


@pytest.mark.parametrize("has_learned", [True, False])
def test_one_who_never_drains_counts_what_was_sampled(small, has_learned):
    model, load = small
    contestant = carried_over(model, load, 4, 0, has_learned=has_learned)
    done = [contestant.run()[0] for _ in range(12)]
    # In the long run a collection of all prompts samples what the load has, a few unfinished texts apart.
    assert abs(np.mean(done) - load.useful) < 12 * 4 / 12 + 1


def test_the_floor_decodes_every_row_in_every_pass(small):
    model, load = small
    floor = DecodeFloor(model, load, 4, seed=0)
    passes = load.useful // 4
    seen = []
    original = model.policy_hidden
    model.policy_hidden = lambda ids, *rest: seen.append(ids.shape) or original(ids, *rest)
    assert floor.run()[0] == 4 * passes
    assert seen == [(4, 1)] * passes


def test_rows_of_the_floor_are_as_long_as_in_a_steady_state():
    load = Load(SMALL)
    columns = _steady_columns(load, 4, steps=4000)
    prompts, targets = np.array([len(p) for p in load.prompts]), load.targets
    # Every token of every text is decoded equally often: column = prompt + age - 1 for age 0 .. target - 1.
    every = np.concatenate([p + np.arange(t) - 1 for p, t in zip(prompts, targets, strict=True)])
    assert set(columns.ravel()) == set(every)
    assert abs(columns.mean() - every.mean()) < 0.05


def test_shares_are_parts_of_one_and_leave_no_clock_behind():
    load = Load(SMALL)
    model = make_model(SMALL, load)
    parts = shares(model, load, 4, 0)
    assert set(parts) == {"model", "sampling", "environment", "load", "bookkeeping"}
    assert sum(parts.values()) == pytest.approx(1.0)
    assert all(part > 0 for part in parts.values())
    assert "policy_hidden" not in vars(model)
    assert isinstance(
        model.policy_hidden(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64)), torch.Tensor
    )


def test_the_faster_number_of_threads_is_kept_and_the_other_closed():
    class Clocked:
        """Claims to be faster on one thread than on three, and slower again later."""

        def __init__(self):
            self.made_on = torch.get_num_threads()
            made.append(self)
            self.ran_on, self.closed = [], False

        def run(self):
            self.ran_on.append(torch.get_num_threads())
            return 10.0, 1.0 if self.made_on == 1 and len(self.ran_on) == 1 else 2.0

        def close(self):
            self.closed = True

    made = []
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        contestant = BestThreads(Clocked)
        assert [contestant.run(), contestant.run()] == [(10.0, 1.0), (10.0, 2.0)]
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    one, three = sorted(made, key=lambda item: item.made_on)
    assert contestant.threads == 1
    assert (one.ran_on, three.ran_on) == ([1, 1], [3])
    assert (one.closed, three.closed) == (False, True)
    contestant.close()
    assert one.closed


def test_who_may_not_choose_runs_on_all_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        contestant = BestThreads(lambda: InProcess(lambda: float(torch.get_num_threads())), choose=False)
        assert contestant.run()[0] == 3.0
    finally:
        torch.set_num_threads(before)
    assert contestant.threads == 3

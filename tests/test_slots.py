import pytest
import torch
from agent_kit import CONTEXT, FAMILIES, build_lm
from textgym_agents.model import ActorCritic
from textgym_agents.slots import SlotLayer


def full(lm, ids):
    with torch.no_grad():
        return lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1, :]


@pytest.mark.parametrize("shape", FAMILIES)
def test_logits_equal_a_full_forward_with_ragged_rows_side_by_side(letters, shape):
    """Prompts of different lengths, decode, a refill of one row in the middle, and the rows that sit out."""
    lm = build_lm(shape, len(letters))
    model = ActorCritic(lm, letters, CONTEXT)
    cache = model.slot_cache(3)
    rng = torch.Generator().manual_seed(0)
    texts = [torch.randint(len(letters), (n,), generator=rng).tolist() for n in (2, 7, 4)]

    def feed(rows, counts):
        width = max(len(texts[row]) for row in rows)
        queries = max(counts)
        columns, ids = [], []
        for row, count in zip(rows, counts, strict=True):
            start = len(texts[row]) - count
            columns.append([start + i if i < count else CONTEXT for i in range(queries)])
            ids.append([texts[row][start + i] if i < count else 0 for i in range(queries)])
        at = torch.tensor(columns)
        mask = cache.aim(torch.tensor(rows), at, width, lm.dtype)
        with torch.no_grad():
            hidden = model.policy_hidden(torch.tensor(ids), at.clamp(max=CONTEXT - 1), mask, cache)
            logits = model.logits(hidden)
        for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
            assert (logits[i, count - 1] - full(lm, texts[row])).abs().max() < 1e-4

    feed([0, 1, 2], [2, 7, 4])
    for _ in range(4):
        for text in texts:
            text.append(int(torch.randint(len(letters), (1,), generator=rng)))
        feed([0, 1, 2], [1, 1, 1])
    texts[1] = torch.randint(len(letters), (3,), generator=rng).tolist()  # refilled: what it held is still in its columns
    feed([1], [3])
    for _ in range(5):
        for row in (0, 1, 2):
            texts[row].append(int(torch.randint(len(letters), (1,), generator=rng)))
        feed([2, 0, 1], [1, 1, 1])
    texts[0] += [3, 4, 5]  # several tokens at once, as a reply brings them
    texts[2] += [6]
    feed([0, 2], [3, 1])


def test_rows_read_in_place_equal_rows_read_by_index(letters):
    lm = build_lm("gpt2", len(letters))
    model = ActorCritic(lm, letters, CONTEXT)
    ids = torch.tensor([[2, 3, 4], [5, 6, 7]])
    at = torch.arange(3).expand_as(ids)
    out = []
    for rows in (None, torch.tensor([0, 1])):
        cache = model.slot_cache(4)
        with torch.no_grad():
            out.append(model.policy_hidden(ids, at, cache.aim(rows, at, 3, lm.dtype), cache))
    assert torch.equal(*out)


def test_copied_rows_hold_the_same_texts(letters):
    lm = build_lm("gpt2", len(letters))
    model = ActorCritic(lm, letters, CONTEXT)
    cache = model.slot_cache(4)
    ids = torch.tensor([[2, 3], [4, 5], [6, 7], [8, 9]])
    at = torch.arange(2).expand_as(ids)
    with torch.no_grad():
        model.policy_hidden(ids, at, cache.aim(None, at, 2, lm.dtype), cache)
        cache.copy_rows(torch.tensor([1, 3]), torch.tensor([0, 1]), 2)
        at = torch.full((2, 1), 2)
        hidden = model.policy_hidden(torch.tensor([[2], [3]]), at, cache.aim(None, at, 3, lm.dtype), cache)
        logits = model.logits(hidden)[:, 0]
    assert (logits[0] - full(lm, [4, 5, 2])).abs().max() < 1e-4
    assert (logits[1] - full(lm, [8, 9, 3])).abs().max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_are_all_read_before_any_is_written_and_keep_what_lies_beyond_the_width(dtype):
    layer = SlotLayer(4, 5)
    layer.lazy_initialization(torch.zeros(1, 2, 1, 3, dtype=dtype), torch.zeros(1, 2, 1, 3, dtype=dtype))
    assert layer.keys is not None and layer.values is not None
    layer.keys.copy_(torch.arange(120).reshape(4, 5, 2, 3))
    layer.values.copy_(-layer.keys)
    before = layer.keys.clone()
    layer.copy_rows(torch.tensor([1, 2, 0]), torch.tensor([2, 1, 3]), 3)  # rows 1 and 2 change places
    assert torch.equal(layer.keys[:, :3], before[[0, 2, 1, 0], :3])
    assert torch.equal(layer.keys[:, 3:], before[:, 3:])
    assert torch.equal(layer.values, -layer.keys)

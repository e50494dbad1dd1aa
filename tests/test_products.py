"""Products from copies of weights: torch's own to rounding, and of the weights as they are, whatever has changed them."""

import numpy as np
import pytest
import torch
from agent_kit import LAYOUTS, copies_of_small_weights_too
from hypothesis import given, settings
from hypothesis import strategies as st
from textgym_agents import products
from textgym_agents.products import ONEDNN, TURNED, Layout, Products, best_layout
from torch import nn
from torch.nn.functional import linear


@pytest.fixture(scope="module", params=LAYOUTS)
def layout(request) -> Layout:
    if request.param == "onednn" and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch has no oneDNN")
    return copies_of_small_weights_too(LAYOUTS[request.param])


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def weight(*shape, seed=0):
    return nn.Parameter(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(2, 40), st.integers(2, 40), st.booleans(), st.booleans(), st.integers(0, 3))
def test_products_are_those_of_torch(layout, rows, inner, outer, has_bias, three, seed):
    taken = Products(layout)
    x, bias = weight(rows, inner, seed=seed).detach(), weight(outer, seed=seed + 1)
    w, wt = weight(outer, inner, seed=seed + 2), weight(inner, outer, seed=seed + 3)
    given_ = x[None] if three else x
    torch.testing.assert_close(
        taken.linear(given_, w, bias if has_bias else None), linear(given_, w, bias if has_bias else None)
    )
    torch.testing.assert_close(taken.addmm(bias, x, wt), torch.addmm(bias, x, wt))
    assert len(taken._copies) == 1 + layout.addmm


def test_what_runs_inside_takes_its_products_from_copies(layout):
    layer, taken = nn.Linear(8, 5), Products(layout)
    x = torch.ones(3, 8)
    with taken:
        first = layer(x)
        assert taken._copies.keys() == {(id(layer.weight), False)}
        # With another weight's copy in its place the product is another: the copy is what is read.
        key, other = (id(layer.weight), False), nn.Linear(8, 5)
        other(x)
        taken._copies[key] = taken._copies[key]._replace(laid_out=taken._copies[id(other.weight), False].laid_out)
        torch.testing.assert_close(layer(x), linear(x, other.weight, layer.bias))
    torch.testing.assert_close(first, layer(x))


def test_views_are_multiplied_as_they_are(layout):
    taken, w = Products(layout), weight(6, 4)
    x = torch.arange(24.0).reshape(4, 6).T
    torch.testing.assert_close(taken.linear(x, w), linear(x, w))
    wide = weight(4, 12)
    torch.testing.assert_close(taken.addmm(weight(12), x[:, :4], wide), torch.addmm(weight(12), x[:, :4], wide))


@pytest.mark.parametrize("change", ["add_", "load", "place", "optimizer"])
def test_a_change_that_torch_notes_is_seen_at_once(layout, change):
    layer, taken, x = nn.Linear(8, 5), Products(layout), torch.ones(3, 8)
    before = taken.linear(x, layer.weight)
    if change == "add_":
        layer.weight.add_(1.0)
    elif change == "load":
        layer.load_state_dict({name: tensor + 1 for name, tensor in layer.state_dict().items()})
    elif change == "place":
        layer.weight.data = layer.weight + 1
    else:
        layer.weight.grad = torch.ones_like(layer.weight)
        torch.optim.AdamW(layer.parameters(), lr=0.1).step()
    after = taken.linear(x, layer.weight)
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, linear(x, layer.weight))
    assert len(taken._copies) == 1


@pytest.mark.parametrize("change", ["fused", "data"])
def test_a_change_that_nothing_notes_is_seen_when_it_is_looked_for(layout, change):
    layer, taken, x = nn.Linear(8, 5), Products(layout), torch.ones(3, 8)
    taken.linear(x, layer.weight)
    if change == "fused":
        layer.weight.grad = torch.ones_like(layer.weight)
        torch.optim.AdamW(layer.parameters(), lr=1e-3, fused=True).step()
    else:
        layer.weight.data[2, 3] += 1e-5  # a single number
    taken.forget_changed()
    torch.testing.assert_close(taken.linear(x, layer.weight), linear(x, layer.weight), atol=1e-6, rtol=0)


def test_what_has_not_changed_keeps_its_copy(layout):
    taken, x = Products(layout), torch.ones(3, 8)
    kept, changed = weight(5, 8), weight(5, 8, seed=1)
    taken.linear(x, kept), taken.linear(x, changed)
    copy = taken._copies[id(kept), False]
    changed.data.mul_(2)
    taken.forget_changed()
    assert taken._copies.keys() == {(id(kept), False)}
    taken.linear(x, kept)
    assert taken._copies[id(kept), False] is copy


def test_one_weight_serves_both_ways_round(layout):
    taken, w, x = Products(layout), weight(6, 6), torch.eye(6)
    torch.testing.assert_close(taken.linear(x, w), w.T.detach().contiguous())
    torch.testing.assert_close(taken.addmm(torch.zeros(6), x, w), w.detach())


def test_everything_else_is_left_to_torch(layout):
    taken, w = Products(layout), weight(5, 8)
    x = torch.ones(3, 8)
    with torch.enable_grad():
        assert taken.linear(x, w).requires_grad
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert taken.linear(x, w).dtype == torch.bfloat16
    taken.linear(x, w.detach())  # a tensor that may be gone the next moment
    taken.linear(x.double(), nn.Parameter(w.double()))
    taken.linear(x.bfloat16(), nn.Parameter(w.bfloat16()))
    torch.testing.assert_close(taken.addmm(torch.ones(3, 5), x, nn.Parameter(w.T)), torch.addmm(torch.ones(3, 5), x, w.T))
    scaled = taken.addmm(torch.ones(5), x, nn.Parameter(w.T), beta=2, alpha=3)
    torch.testing.assert_close(scaled, torch.addmm(torch.ones(5), x, w.T, beta=2, alpha=3))
    with taken:
        assert torch.equal(torch.add(x, 1), x + 1)
        named = torch.addmm(input=torch.ones(5), mat1=x, mat2=nn.Parameter(w.T))
        assert torch.equal(named, torch.addmm(torch.ones(5), x, w.T))
        scaled = torch.addmm(torch.ones(5), x, nn.Parameter(w.T), alpha=3)
        assert torch.equal(scaled, torch.addmm(torch.ones(5), x, w.T, alpha=3))
    assert not taken._copies


@pytest.mark.parametrize("limit", [{"least": 41}, {"most": 39}, {"few": 4}])
def test_what_a_layout_is_not_for_is_left_to_torch(layout, limit):
    taken, w, x = Products(layout._replace(**limit)), weight(5, 8), torch.ones(3, 8)
    assert torch.equal(taken.linear(x, w), linear(x, w))
    assert torch.equal(taken.addmm(torch.zeros(8), torch.ones(3, 5), w), torch.addmm(torch.zeros(8), torch.ones(3, 5), w))
    assert not taken._copies
    within = Products(layout._replace(least=40, most=40, few=3))
    within.linear(x, w)
    assert len(within._copies) == 1


def test_weights_that_lie_as_they_should_are_multiplied_as_they_are():
    w, x = weight(8, 5), torch.ones(4, 8)
    with Products(TURNED._replace(least=4)) as taken:
        torch.addmm(torch.zeros(5), x, w)
        assert not taken._copies
        linear(x, weight(5, 8))
        assert taken._copies
    assert taken.operands([(w, True)], 4) == ([w], [False])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(2, 40), st.integers(2, 40), st.booleans(), st.booleans())
def test_the_product_in_torchscript_is_the_products_own(layout, rows, inner, outer, has_bias, transposed):
    x, bias = weight(rows, inner).detach(), weight(outer, seed=1).detach() if has_bias else None
    w = weight(inner, outer, seed=2) if transposed else weight(outer, inner, seed=2)
    (copy,), (is_copy,) = Products(layout).operands([(w, transposed)], rows)
    assert is_copy == (layout.addmm or not transposed) and (copy is w) != is_copy
    if is_copy:
        source = f"def product(rows, weight, bias: Optional[Tensor]):\n    {layout.script}\n"
        assert torch.equal(torch.jit.CompilationUnit(source).product(x, copy, bias), layout.product(x, copy, bias))


@pytest.mark.parametrize(("amd", "intel", "mkl", "best"), [
    (True, False, True, ONEDNN), (False, True, True, TURNED), (False, False, True, None), (True, False, False, None),
    (False, True, False, None),
])  # fmt: skip
def test_the_best_layout_hangs_on_whose_processor_it_is(monkeypatch, amd, intel, mkl, best):
    monkeypatch.setattr(products, "made_by_amd", lambda: amd)
    monkeypatch.setattr(products, "made_by_intel", lambda: intel)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    if best is ONEDNN and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        best = None
    assert best_layout() is best


def test_copies_hold_no_more_than_they_may(layout, monkeypatch):
    monkeypatch.setattr(products, "_MOST", 100)
    taken, x = Products(layout), torch.ones(3, 8)
    weights = [weight(5, 8, seed=seed) for seed in range(4)]
    for _ in range(2):
        weights[0].add_(1.0)  # its copy makes room for the next
        for w in weights:
            torch.testing.assert_close(taken.linear(x, w), linear(x, w))
        assert taken._copies.keys() == {(id(w), False) for w in weights[:2]}
    assert taken._copies[id(weights[0]), False].version == weights[0]._version


def test_weights_that_are_not_finite_give_what_torch_gives(layout):
    taken, x = Products(layout), torch.ones(3, 8)
    w = weight(5, 8)
    w.data[1, 2] = float("nan")
    for _ in range(2):
        np.testing.assert_array_equal(np.isnan(taken.linear(x, w).numpy()), np.isnan(linear(x, w).numpy()))
        taken.forget_changed()

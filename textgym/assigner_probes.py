"""The checks of a credit assigner, one function each: it raises where the assigner breaks its promise.

Left out on purpose: whether an assigner's shares are true; ``exact`` counts that out on small tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.probes import Probe
from textgym.rewards import resolve
from textgym.rules import EOS, LENGTH


def _assigned(probe: Probe, episodes: Sequence[Episode], scores: Sequence[float]) -> list[Any]:
    assert probe.assigner is not None
    return [item.token_rewards for item in resolve(list(probe.assigner(scores, episodes)), episodes)]


def _scores(count: int) -> list[float]:
    return [(-1.0) ** i * (1 + i / 7) for i in range(count)]


def _it_declares_itself(probe: Probe) -> None:
    for name in ("causal", "conserves"):
        value = getattr(probe.assigner, name, None)
        assert isinstance(value, bool), f"assigner.{name} is {value!r}; declare True or False"
    assert callable(probe.assigner), "an assigner is called with scores and episodes"


def _assigned_rewards_resolve(probe: Probe) -> None:
    _assigned(probe, probe.episodes, _scores(len(probe.episodes)))


def _it_conserves_what_it_says(probe: Probe) -> None:
    if not getattr(probe.assigner, "conserves", False):
        return
    scores = _scores(len(probe.episodes))
    for score, paid in zip(scores, _assigned(probe, probe.episodes, scores), strict=True):
        assert abs(float(paid.sum(dtype=np.float64)) - score) <= 1e-5 * max(1.0, abs(score)), (
            f"the assigner pays {float(paid.sum())} in total for a score of {score}; split all of it, or set conserves = False"
        )


def _it_is_as_causal_as_declared(probe: Probe) -> None:
    if not getattr(probe.assigner, "causal", False):
        return
    rng = np.random.default_rng(probe.seed)
    for sampled in probe.played:
        count = len(sampled.episode.ids)
        if count < 2:
            continue
        kept = int(rng.integers(1, count))
        longer = np.concatenate([sampled.episode.ids[:kept], rng.integers(probe.rules.vocab_size, size=3)])
        other = probe.rules.episode(sampled.episode.prompt, longer, EOS if len(longer) < count else LENGTH, 0)
        first, second = _assigned(probe, [sampled.episode, other], [1.0, -2.0])
        seen = min(kept, count - 1)
        assert np.allclose(first[:seen], second[:seen], atol=1e-6), (
            f"two texts with the same first {kept} tokens are paid {first[:seen].tolist()} and {second[:seen].tolist()} on "
            "them: what later tokens did is booked on earlier ones; set causal = False"
        )


ASSIGNER_CHECKS: dict[str, Callable[[Probe], None]] = {
    "declarations": _it_declares_itself,
    "rewards": _assigned_rewards_resolve,
    "conservation": _it_conserves_what_it_says,
    "causality": _it_is_as_causal_as_declared,
}

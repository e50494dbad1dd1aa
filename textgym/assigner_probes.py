"""The checks of a credit assigner, one function each: it raises where the assigner breaks its promise.

Left out on purpose: whether an assigner's shares are true; ``exact`` counts that out on small tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from textgym.episode import Episode
from textgym.probes import Probe, Sampled
from textgym.rewards import resolve
from textgym.rules import EOS, LENGTH, Rules


def with_replies(rules: Rules, played: Sequence[Sampled]) -> list[Sampled]:
    """Give the longer texts once more, as if the environment had written one token in their midst."""
    out = []
    for episode, actions in played:
        middle = len(episode.ids) // 2
        if middle:
            replied = rules.episode(episode.prompt, episode.ids, EOS, episode.episode_id, [(middle, middle + 1)])
            if replied.agent_mask[-1]:
                out.append(Sampled(replied, actions))
    return out


def some_score(episodes: Sequence[Episode]) -> list[float]:
    """Score any text, also a part of one: by each character, where it stands, and the number of tokens; in [-1, 1]."""
    return [float(np.sin(sum(ord(c) * (i + 1) for i, c in enumerate(e.text)) + len(e.ids))) for e in episodes]


def _assigned(probe: Probe, episodes: Sequence[Episode], scores: Sequence[float]) -> list[Any]:
    assert probe.assigner is not None
    return [item.token_rewards for item in resolve(list(probe.assigner(scores, episodes)), episodes)]


def _scores(count: int) -> list[float]:
    return [0.0 if i % 6 == 5 else (-1.0) ** i * (1 + i / 7) for i in range(count)]


def _it_declares_itself(probe: Probe) -> None:
    for name in ("causal", "conserves"):
        value = getattr(probe.assigner, name, None)
        assert isinstance(value, bool), f"assigner.{name} is {value!r}; declare True or False"
    assert callable(probe.assigner), "an assigner is called with scores and episodes"


def _assigned_rewards_resolve(probe: Probe) -> None:
    assert probe.assigner is not None
    episodes, scores = probe.episodes, _scores(len(probe.episodes))
    given = list(probe.assigner(scores, episodes))
    assert len(given) == len(episodes), f"it gave {len(given)} arrays for {len(episodes)} episodes; give one each"
    assert scores == _scores(len(scores)), "it changed the scores that it was handed; leave them as they are"
    for paid, episode in zip(given, episodes, strict=True):
        shape, said = np.shape(paid), f"of {episode.text!r}, which has {len(episode.ids)} tokens"
        assert shape == episode.ids.shape, f"the shares {said}, have shape {shape}; give one number per response token"
        values = np.asarray(paid, dtype=np.float64)
        assert np.isfinite(values).all(), f"the shares {said}, are {values.tolist()}; give finite numbers"
        assert not values[~episode.agent_mask].any(), (
            f"the shares {said}, are {values.tolist()}, and the environment wrote the tokens "
            f"{np.flatnonzero(~episode.agent_mask).tolist()}; pay the agent's alone (episode.agent_mask)"
        )
    resolve(given, episodes)
    assert list(probe.assigner([], [])) == [], "it gave something for no episode; give an empty list"


def _it_conserves_what_it_says(probe: Probe) -> None:
    if not getattr(probe.assigner, "conserves", False):
        return
    scores = _scores(len(probe.episodes))
    for score, paid in zip(scores, _assigned(probe, probe.episodes, scores), strict=True):
        assert abs(float(paid.sum(dtype=np.float64)) - score) <= 1e-5 * max(1.0, abs(score)), (
            f"the assigner pays {float(paid.sum())} in total for a score of {score}; split all of it, or set conserves = False"
        )


def _it_is_repeatable(probe: Probe) -> None:
    scores = _scores(len(probe.episodes))
    first, second = (_assigned(probe, probe.episodes, scores) for _ in range(2))
    for episode, one, other in zip(probe.episodes, first, second, strict=True):
        assert np.array_equal(one, other), (
            f"the shares of {episode.text!r} are {one.tolist()}, and {other.tolist()} the second time; what is drawn is drawn "
            "by a seed and the text's tokens (episode.ids)"
        )


def _it_does_not_depend_on_the_batch(probe: Probe) -> None:
    """Order, size and the lengths of the others, to which an assigner may pad."""
    episodes, scores = probe.episodes, _scores(len(probe.episodes))
    together = _assigned(probe, episodes, scores)
    reverse = _assigned(probe, episodes[::-1], scores[::-1])[::-1]
    for number, episode in enumerate(episodes):
        alone = _assigned(probe, [episode], [scores[number]])[0]
        for other, where in ((alone, "alone"), (reverse[number], "among the same in reverse order")):
            assert np.allclose(together[number], other, rtol=1e-5, atol=1e-6), (
                f"the shares of {episode.text!r} depend on the texts beside it in the batch: {together[number].tolist()} among "
                f"{len(episodes)}, {other.tolist()} {where}; batches are whatever ended in one step, and padding is nobody's"
            )


def _it_is_as_causal_as_declared(probe: Probe) -> None:
    if not getattr(probe.assigner, "causal", False):
        return
    rng = np.random.default_rng(probe.seed)
    for sampled in probe.played:
        count = len(sampled.episode.ids)
        if count < 2 or not sampled.episode.agent_mask.all():
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
    "repeatable": _it_is_repeatable,
    "batches": _it_does_not_depend_on_the_batch,
    "causality": _it_is_as_causal_as_declared,
}

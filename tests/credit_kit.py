"""All assigners, by discovery, and random texts to try them on."""

import importlib
import inspect
import pkgutil

import numpy as np

import textgym.credit
from textgym import Episode, Prompt
from textgym.credit import Last
from textgym.parts import matches


def letters_score(episodes):
    """A score of any text: it depends on each character, where it stands, and its neighbour; in [-1, 1]."""
    out = []
    for episode in episodes:
        codes = np.array([ord(character) for character in episode.text], dtype=np.float64)
        out.append(float(np.sin(codes @ np.arange(1, len(codes) + 1) + len(episode.ids))) if len(codes) else 0.25)
    return out


def letters_weights(episodes):
    return [1.0 + (episode.ids * 7 % 5) for episode in episodes]


def as_they_are(episodes, k):
    """Continuations that add nothing: k times the text so far."""
    return [[episode] * k for episode in episodes]


def pairs(episode):
    return matches(episode, r"(?s)..?")


ARGUMENTS = {
    "score": letters_score,
    "weights": letters_weights,
    "continuations": as_they_are,
    "assigner": Last(),
    "tally": None,
}
"""What is handed to a constructor's parameters by their names; a new assigner's new needs go here."""


def assigners():
    """Every class of ``textgym.credit`` that declares itself, made with what it needs; with spans too, where it takes them."""
    found = {}
    for module in pkgutil.iter_modules(textgym.credit.__path__, "textgym.credit."):
        for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if all(hasattr(kind, attribute) for attribute in ("causal", "conserves")) and name != "Assigner":
                taken = inspect.signature(kind).parameters
                made = {key: value for key, value in ARGUMENTS.items() if key in taken and value is not None}
                found[name] = kind(**made)
                if "spans" in taken:
                    found[f"{name}-spans"] = kind(**made, spans=pairs)
                if "groups" in taken:
                    found[f"{name}-groups"] = kind(**made, groups=pairs)
    return found


def random_episode(rng, episode_id=0, longest=9):
    """Tokens of 0 to 3 characters, some that share one with the token before, some of the environment's."""
    count = int(rng.integers(1, longest + 1))
    offsets, end = [], 0
    agent_mask = rng.random(count) < 0.8
    agent_mask[rng.integers(count)] = True
    for token in range(count):
        shares = token > 0 and offsets[-1][1] > offsets[-1][0] and agent_mask[token] == agent_mask[token - 1]
        if shares and rng.random() < 0.15:
            start, end = offsets[-1][1] - 1, offsets[-1][1] + int(rng.integers(0, 2))
        else:
            start, end = end, end + int(rng.choice(4, p=[0.1, 0.6, 0.2, 0.1]))
        offsets.append((start, end))
    return Episode(
        prompt=Prompt("", np.array([0])),
        ids=rng.integers(2, 30, size=count),
        text="".join(rng.choice(list("abcdefgh ."), size=end)),
        offsets=np.array(offsets, dtype=np.int64).reshape(count, 2),
        agent_mask=agent_mask,
        turns=np.zeros(count, dtype=np.int64),
        ended_by="eos",
        episode_id=episode_id,
    )


def random_scores(rng, count):
    """Scores of sizes 1e-3 to 1e3, some 0."""
    return (rng.normal(size=count) * 10.0 ** rng.integers(-3, 4, size=count) * (rng.random(count) < 0.9)).tolist()


def worst_gap(assigner, episodes, scores):
    """How far the float32 token rewards are from the scores, in units of max(1, |score|)."""
    resolved = textgym.resolve(list(assigner(scores, episodes)), episodes)
    gaps = [
        abs(float(item.token_rewards.sum(dtype=np.float64)) - score) / max(1.0, abs(score))
        for item, score in zip(resolved, scores, strict=True)
    ]
    return max(gaps)

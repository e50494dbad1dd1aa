"""Exact truth of small tasks: every text that a tabular policy can write, its policy gradient, its tokens' advantages.

Left out on purpose: sampling. A task with more texts than can be counted out is refused, and so is one whose prompts differ.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt, Release
from textgym.rules import RUNNING, Rules
from textgym.text import Text

Floats: TypeAlias = npt.NDArray[np.float64]
Returns: TypeAlias = Literal["reward_to_go", "whole_stream", "token"]
MOST_TEXTS = 20_000
PROMPTS_DRAWN = 32
"""How many prompts are drawn to see whether they differ."""


class Enumeration:
    """Every text of a task, played through its rules, for policies that are tables of logits, (R, V).

    E texts, T the most agent tokens among them, R rows of the table, V tokens.

    Args:
        task: a ``textgym.tasks.credit_probes.Probe``, or any task with one prompt: its agent may then write every token.
        rows: what a row of the table is: "history", one for each text so far; "position", one for each number of tokens that
            the agent has written, whatever they are.

    Raises:
        ValueError: there are more than 20,000 texts, the task draws different prompts, or the rewards of a text lie on no token
            of the agent's.
    """

    def __init__(self, task: Any, rows: Literal["history", "position"] = "history") -> None:
        self.rules = Rules(task)
        self._by_history = rows == "history"
        self._prompt = self._only_prompt()
        self._row_of: dict[Hashable, int] = {}
        self.episodes: list[Episode] = []
        """E finished texts."""
        paths = []
        for episode, path in self._walk([]):
            self.episodes.append(episode)
            paths.append(path)
            if len(paths) > MOST_TEXTS:
                raise ValueError(f"the task has more than {MOST_TEXTS} texts; exact truth is for smaller ones")
        width = max(map(len, paths))
        self.rows = np.full((len(paths), width), -1, dtype=np.int64)
        """(E, T), the row that each agent token is drawn from; -1 beyond the text."""
        self.actions = np.zeros_like(self.rows)
        """(E, T), the token that is drawn."""
        self.allowed = np.zeros((len(self._row_of), self.rules.vocab_size), dtype=np.bool_)
        """(R, V), what the policy may draw."""
        for number, path in enumerate(paths):
            self.rows[number, : len(path)], self.actions[number, : len(path)] = np.array(path).T
        self.mask = self.rows >= 0
        """(E, T), where there is an agent token."""
        self.allowed[self.rows[self.mask], self.actions[self.mask]] = True

    def _only_prompt(self) -> Prompt:
        rng = np.random.default_rng(0)
        first, *others = [self.rules.prompt(rng, {}, 0) for _ in range(PROMPTS_DRAWN)]
        for other in others:
            if not np.array_equal(np.asarray(first.ids), np.asarray(other.ids)) or first.metadata != other.metadata:
                raise ValueError(
                    f"the task draws different prompts, {first.text!r} {dict(first.metadata)} and {other.text!r} "
                    f"{dict(other.metadata)}; exact truth is for tasks with one"
                )
        return first

    def _walk(self, actions: list[int]) -> Iterator[tuple[Episode, list[tuple[int, int]]]]:
        text, code = self._replay(self._prompt, actions)
        if code != RUNNING:
            yield text.episode(code), []
            return
        row = self._row(text, len(actions))
        for token in self._choices(len(actions)):
            for episode, path in self._walk([*actions, token]):
                yield episode, [(row, token), *path]

    def _replay(self, prompt: Prompt, actions: Sequence[int]) -> tuple[Text, int]:
        text, code = Text(self.rules, prompt, 0), RUNNING
        for token in actions:
            code = text.write(token)
        return text, code

    def _row(self, text: Text, written: int) -> int:
        key = tuple(text.tokens[: text.length].tolist()) if self._by_history else written
        return self._row_of.setdefault(key, len(self._row_of))

    def _choices(self, written: int) -> list[int]:
        choices = getattr(self.rules.task, "choices", None)
        if choices is None:
            return list(range(self.rules.vocab_size))
        stop = [self.rules.eos_token_id] if getattr(self.rules.task, "may_stop", False) else []
        return [*self.rules.tokenizer.encode(choices[written]).tolist(), *stop]

    def random_logits(self, seed: int = 0, scale: float = 1.0) -> Floats:
        """Draw a policy: logits, normal with deviation ``scale``."""
        return np.random.default_rng(seed).normal(scale=scale, size=self.allowed.shape)

    def policy(self, logits: Floats) -> Floats:
        """Give the probability of each token in each row, (R, V): the softmax over what is allowed."""
        drawn = np.where(self.allowed, logits, -np.inf)
        raised = np.exp(drawn - drawn.max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)

    def probabilities(self, logits: Floats) -> Floats:
        """Give the probability of each text, (E,)."""
        drawn = self.policy(logits)[self.rows, self.actions]
        return np.where(self.mask, drawn, 1.0).prod(1)

    def releases(self, assigner: Any = None) -> list[Release]:
        """Reward all texts as the environment does, with the task's own rewards or split by an assigner."""
        rules = self.rules if assigner is None else Rules(self.rules.task, assigner=assigner)
        return rules.release(self.episodes, [0] * len(self.episodes))

    def credit(self, releases: Sequence[Release], returns: Returns = "reward_to_go") -> Floats:
        """Give the weight of each agent token's log-probability, (E, T): undiscounted, inside its own stream.

        Args:
            releases: of all texts.
            returns: "reward_to_go": the token's reward and those after it; "whole_stream": all; "token": its own alone.
        """
        out = np.zeros(self.rows.shape)
        for row, release in zip(out, releases, strict=True):
            paid = release.token_rewards[release.agent_mask].astype(np.float64)
            streams = release.streams[release.agent_mask]
            same = streams[:, None] == streams[None, :]
            if returns == "reward_to_go":
                same = np.triu(same)
            row[: len(paid)] = paid if returns == "token" else same @ paid
        return out

    def gradient(self, logits: Floats, credit: Floats) -> Floats:
        """Give the expectation of ``sum over t of credit_t grad log pi(a_t | s_t)``, (R, V), by the logits."""
        weight = (self.probabilities(logits)[:, None] * credit)[self.mask]
        rows, actions = self.rows[self.mask], self.actions[self.mask]
        out = np.zeros(self.allowed.shape)
        np.add.at(out, (rows, actions), weight)
        return out - np.bincount(rows, weight, len(out))[:, None] * self.policy(logits)

    def true_gradient(self, logits: Floats, releases: Sequence[Release]) -> Floats:
        """Give the gradient of the expected total, (R, V): every token weighs all that its text earns, streams or not."""
        total = np.array([release.token_rewards.sum(dtype=np.float64) for release in releases])
        return self.gradient(logits, np.where(self.mask, total[:, None], 0.0))

    def advantages(self, logits: Floats, credit: Floats) -> Floats:
        """Give ``E[credit | row, token] - E[credit | row]``, (R, V); 0 where the policy never is or what it may not draw.

        With the task's own rewards and whole-stream returns these are the exact token advantages.
        """
        shape = self.allowed.shape
        reached, summed = np.zeros(shape), np.zeros(shape)
        where = self.rows[self.mask], self.actions[self.mask]
        chance = np.broadcast_to(self.probabilities(logits)[:, None], credit.shape)
        np.add.at(reached, where, chance[self.mask])
        np.add.at(summed, where, (chance * credit)[self.mask])
        visited = reached > 0
        q = np.divide(summed, reached, out=np.zeros(shape), where=visited)
        v = np.divide(summed.sum(1), reached.sum(1), out=np.zeros(shape[0]), where=reached.sum(1) > 0)
        return np.where(visited, q - v[:, None], 0.0)

    def continuations(self, logits: Floats, seed: int = 0) -> TableContinuations:
        """Let the tabular policy go on, for ``textgym.credit.MonteCarlo``."""
        return TableContinuations(self, self.policy(logits), seed)


@dataclass(frozen=True, eq=False)
class TableContinuations:
    """Continues texts by a table; what is drawn for a text depends on the seed and the text alone."""

    texts: Enumeration
    policy: Floats
    seed: int

    def __call__(self, episodes: Sequence[Episode], k: int) -> list[list[Episode]]:
        """Give k finished texts that begin as each of ``episodes``."""
        return [[self._go_on(episode, number) for number in range(k)] for episode in episodes]

    def _go_on(self, episode: Episode, number: int) -> Episode:
        rng = np.random.default_rng([self.seed, number, *episode.ids.tolist()])
        actions = episode.ids[episode.agent_mask].tolist()
        text, code = self.texts._replay(episode.prompt, actions)
        while code == RUNNING:
            row = self.policy[self.texts._row(text, len(actions))]
            actions.append(int(rng.choice(len(row), p=row)))
            code = text.write(actions[-1])
        return text.episode(code)


@dataclass(frozen=True)
class CreditError:
    """How far what is learned from is from the truth, for one policy."""

    cosine: float
    """Of the expected gradient to the exact one; NaN where either is 0."""
    sign_accuracy: float
    """Share of tokens with an advantage whose credit, less its mean in the row, has the advantage's sign."""
    rank_correlation: float
    """Spearman's, of credit less its mean in the row with the exact advantage, over tokens; NaN where either is constant."""
    variance: float
    """Of the gradient from one text, baseline subtracted, summed over its entries, in units of the exact gradient's square."""
    reward_calls: int
    """Texts that the assigner had scored per finished text, on average, rounded."""


def credit_error(texts: Enumeration, logits: Floats, assigner: Any = None, returns: Returns = "reward_to_go") -> CreditError:
    """Measure an assigner on a task whose truth can be counted out.

    The truth is each stream's own: the exact advantage of a token in the return of its stream, and the gradient made of them.
    Signs, ranks and the variance are those of a critic's best: credit less its mean in the token's row.

    Args:
        texts: the task's.
        logits: the policy, (R, V).
        assigner: as the environment takes it; None: the task's own rewards.
        returns: what a token's credit holds; see ``Enumeration.credit``.
    """
    own = texts.credit(texts.releases(), "whole_stream")
    exact, chance, policy = texts.gradient(logits, own), texts.probabilities(logits), texts.policy(logits)
    before = getattr(assigner, "reward_calls", 0)
    credit = texts.credit(texts.releases(assigner), returns)
    calls = getattr(assigner, "reward_calls", 0) - before
    mask, rows = texts.mask, texts.rows
    weight = np.broadcast_to(chance[:, None], credit.shape)
    means = np.bincount(rows[mask], (weight * credit)[mask], len(policy))
    means /= np.maximum(np.bincount(rows[mask], weight[mask], len(policy)), 1e-300)
    centred = np.where(mask, credit - means[rows], 0.0)
    truth = np.where(mask, texts.advantages(logits, own)[rows, texts.actions], 0.0)
    matters = mask & (np.abs(truth) > 1e-9)
    agrees = np.sign(np.where(np.abs(centred) > 1e-9, centred, 0.0)) == np.sign(truth)
    expected, square = texts.gradient(logits, credit), float((exact**2).sum())
    spread = _second_moment(texts, policy, chance, centred) - float((expected**2).sum())
    return CreditError(
        cosine=_cosine(expected, exact),
        sign_accuracy=float(weight[matters & agrees].sum() / weight[matters].sum()) if matters.any() else float("nan"),
        rank_correlation=_spearman(centred[mask], truth[mask], weight[mask]),
        variance=spread / square if square else float("nan"),
        reward_calls=round(calls / len(texts.episodes)),
    )


def _second_moment(texts: Enumeration, policy: Floats, chance: Floats, credit: Floats) -> float:
    """Give E[|sum over t of credit_t grad log pi(a_t)|^2]; a row occurs once in a text, so tokens of different rows add up."""
    scores = (1.0 - 2.0 * policy[texts.rows, texts.actions] + (policy**2).sum(1)[texts.rows]) * texts.mask
    return float(chance @ (credit**2 * scores).sum(1))


def _cosine(one: Floats, other: Floats) -> float:
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / size if size > 1e-18 else float("nan")


def _spearman(one: Floats, other: Floats, weight: Floats) -> float:
    ranks = [_ranks(values, weight) for values in (one, other)]
    centred = [rank - np.average(rank, weights=weight) for rank in ranks]
    (a, b), product = (np.average(c**2, weights=weight) for c in centred), np.average(centred[0] * centred[1], weights=weight)
    return float(product / np.sqrt(a * b)) if a * b > 1e-18 else float("nan")


def _ranks(values: Floats, weight: Floats) -> Floats:
    """Give each value the weight below it and half of that at it; values within rounding are ties."""
    _, place = np.unique(np.round(values, 9) + 0.0, return_inverse=True)
    mass = np.bincount(place, weight)
    return (mass.cumsum() - mass / 2)[place]

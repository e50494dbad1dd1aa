"""The contract as functions that users call: three lines in a test suite of their own, or ``textgym check module:Task``.

Left out on purpose: judgement. A check says whether a task keeps what it promises; whether the promise is a good one is
seen by training on it. ``probes`` and ``assigner_probes`` have the
checks one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textgym.assigner_probes import ASSIGNER_CHECKS, some_score, with_replies
from textgym.credit import Assigner, Scores, bind
from textgym.episode import Release
from textgym.ledger import Ledger
from textgym.probes import (
    REWARD_CHECKS,
    TASK_CHECKS,
    Probe,
    Sampled,
    play_demonstrations,
    play_random,
    play_texts,
)
from textgym.rules import Rules
from textgym.task import PromptTask
from textgym.tokenizer import TextTokenizer, symbol_tokenizer


@dataclass(frozen=True)
class Finding:
    """What one check came to."""

    name: str
    """Which check."""
    fault: str | None
    """What is wrong and what to do about it; None: nothing."""


@dataclass(frozen=True)
class Report:
    """All findings, and where the rewards of the texts that were played went."""

    findings: Sequence[Finding]
    ledger: Ledger
    """Means over the played texts."""
    paid: float
    """Mean sum of the token rewards; ``ledger.asked`` less its accounts."""
    episodes: int
    """How many texts were played."""

    @property
    def faults(self) -> list[Finding]:
        """The findings that are faults."""
        return [finding for finding in self.findings if finding.fault is not None]


class CheckError(AssertionError):
    """At least one check failed; the message names each and says what to do."""

    def __init__(self, what: str, faults: Sequence[Finding]) -> None:
        super().__init__(f"{what} fails {len(faults)} checks:\n" + "\n".join(f"  {f.name}: {f.fault}" for f in faults))
        self.names = [finding.name for finding in faults]


def report_task(task: Any, *, episodes: int = 32, seed: int = 0, **task_kwargs: Any) -> Report:
    """Run every check of a task; nothing is raised for what they find.

    Args:
        task: as everywhere: id, short name, "module:Name", class or object.
        episodes: how many random texts are played; demonstrations come on top.
        seed: of prompts and random texts.
        task_kwargs: arguments of the task's constructor.
    """
    try:
        rules = Rules(task, **task_kwargs)
        # What a task promises of itself is asked of the task alone; texts are played afterwards.
        rules.prompt(np.random.default_rng(seed), {}, 0)
    except Exception as error:
        return Report([Finding("construction", _said(error))], Ledger(), 0.0, 0)

    def play() -> list[Sampled]:
        return [*play_random(rules, episodes, seed), *_demonstrated(rules, seed)]

    return _run(TASK_CHECKS, Probe(rules, seed), play)


def check_task(task: Any, *, episodes: int = 32, seed: int = 0, **task_kwargs: Any) -> Report:
    """Check that a task keeps the contract of ``textgym.Task``.

    Prompts, rewards, streams, replies, endings, demonstrations and scores are right in type, repeatable, independent of their
    neighbours in a batch and of global random state; both doors and Gymnasium's checker agree.

    Raises:
        CheckError: names each check that failed and says what to do.
    """
    report = report_task(task, episodes=episodes, seed=seed, **task_kwargs)
    return _raise_faults(report, task if isinstance(task, str) else getattr(task, "__name__", type(task).__name__))


def check_rewards(
    reward_fn: Any,
    tokenizer: Any,
    *,
    texts: Sequence[str] = (),
    prompts: Sequence[Any] = ("",),
    episodes: int = 32,
    **options: Any,
) -> Report:
    """Check a reward function alone, on ``texts`` and on random samples of the tokenizer.

    Args:
        reward_fn: as ``PromptTask`` takes it.
        tokenizer: see ``TextTokenizer``.
        texts: responses that the function should be able to judge.
        prompts: what the episodes start from.
        episodes: how many random texts are judged too.
        options: of ``PromptTask``: ``streams_fn``, ``weights``, ``max_new_tokens``, ...

    Raises:
        CheckError: names each check that failed and says what to do.
    """
    longest = max((len(TextTokenizer(tokenizer).encode(text)) for text in texts), default=0)
    options.setdefault("max_new_tokens", max(64, longest + 1))
    rules = Rules(PromptTask(prompts, tokenizer, reward_fn, **options))
    report = _run(REWARD_CHECKS, Probe(rules, 0), lambda: [*play_texts(rules, texts), *play_random(rules, episodes, 0)])
    return _raise_faults(report, getattr(reward_fn, "__name__", type(reward_fn).__name__))


def check_assigner(
    assigner: Assigner, tokenizer: Any = None, *, texts: Sequence[str] = (), score: Scores | None = None, episodes: int = 32
) -> Report:
    """Check that a credit assigner is what it declares: ``conserves``, ``causal``; and pays the agent's tokens only.

    Also that it gives finite numbers, one per token, for texts of every kind (empty ones, of one token, with tokens of the
    environment's), the same ones for the same text whatever stands beside it in the batch, and leaves its arguments alone.

    Args:
        assigner: see ``textgym.credit.Assigner``.
        tokenizer: of the texts that are judged; default: one of letters.
        texts: responses; random samples of the tokenizer come on top.
        score: what an assigner asks that scores parts of texts and has no score of its own; default: one of any text.
        episodes: how many random ones.

    Raises:
        CheckError: names each check that failed and says what to do.
    """
    tokenizer = TextTokenizer(symbol_tokenizer([*"abcdefgh .\n"]) if tokenizer is None else tokenizer)
    room = max([8, *(len(tokenizer.encode(text)) + 1 for text in texts)])
    rules = Rules(PromptTask([""], tokenizer, lambda played: [0.0] * len(played), max_new_tokens=room))

    def play() -> list[Sampled]:
        played = [*play_texts(rules, texts), *play_random(rules, episodes, 0)]
        return [*played, *with_replies(rules, played)]

    report = _run(ASSIGNER_CHECKS, Probe(rules, 0, bind(assigner, score or some_score)), play)
    return _raise_faults(report, type(assigner).__name__)


def _run(checks: dict[str, Callable[[Probe], None]], probe: Probe, play: Callable[[], list[Sampled]]) -> Report:
    findings = []
    try:
        probe.played = play()
    except Exception as error:
        findings.append(Finding("episodes", _said(error)))
        return Report(findings, Ledger(), 0.0, 0)
    for name, check in checks.items():
        try:
            check(probe)
            findings.append(Finding(name, None))
        except Exception as error:
            findings.append(Finding(name, _said(error)))
            if name == "rewards":
                break  # everything after it is about rewards too, and would say the same
    releases = _releases(probe)
    paid = sum(float(release.token_rewards.sum(dtype=np.float64)) for release in releases) / max(1, len(releases))
    return Report(findings, Ledger.mean([release.ledger for release in releases]), paid, len(probe.played))


def _demonstrated(rules: Rules, seed: int) -> list[Sampled]:
    """Play the demonstrations; where they have faults, the check of that name says so."""
    try:
        return play_demonstrations(rules, seed)
    except Exception:
        return []


def _releases(probe: Probe) -> list[Release]:
    """Release what was played, as far as it goes: a task with faults may not come that far."""
    try:
        return probe.rules.release(probe.episodes, [0] * len(probe.episodes))
    except Exception:
        return []


def _raise_faults(report: Report, what: str) -> Report:
    if report.faults:
        raise CheckError(what, report.faults)
    return report


def _said(error: Exception) -> str:
    notes = " ".join(getattr(error, "__notes__", []))
    kind = "" if isinstance(error, ValueError | AssertionError | TypeError) else f"{type(error).__name__}: "
    return f"{kind}{error} {notes}".strip()

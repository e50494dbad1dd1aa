"""Any dataset of reasoning-gym as a task: its questions are the prompts, its own scorer is the reward.

Left out on purpose: scorers of our own. What an answer is worth is what the dataset's ``score_answer`` says, to the last digit;
this file only finds the answer in the response, and lays the score on tokens.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Prompt
from textgym.rewards import Reward
from textgym.task import Task
from textgym.tokenizer import TextTokenizer, symbol_tokenizer

_TAGS = ("<answer>", "</answer>")
_ROUNDING = 1e-9  # some datasets add their scores up to 1.0000000000000002


class ReasoningGym(Task):
    """Answer the questions of a dataset of reasoning-gym; the reward is the dataset's own score of the answer.

    Description:
        reasoning-gym (Stojanovski et al., 2025, arXiv:2505.24760) has about a hundred generators of questions whose answers can
        be checked: arithmetic, logic, games, graphs. One of them, with a fixed seed, is the set of prompts. Needs
        ``pip install 'textgym[reasoning]'``.

    Prompt:
        Uniformly one of the questions, as ``template`` writes it; the entry is ``metadata["entry"]``.

    Action space:
        One token of the tokenizer; the default one has the characters of the dataset's questions and answers.

    Observation space:
        As every textgym environment: ``Box(-1, V - 1, (context_length,), int64)``.

    Rewards and streams:
        ``score_answer(answer, entry)`` of the dataset, mostly 1 or 0, with partial credit where the dataset gives it; a
        response without an answer is scored as the answer None. ``reward="scalar"`` pays it on the last token.
        ``reward="dense"`` pays every token the difference that it made to the score of the text so far, which sums to the same:
        what completes the answer earns, what spoils it afterwards pays. One stream.

    Episode end:
        End-of-text, ``</answer>`` where the answer stands in tags, or ``max_new_tokens``.

    Score:
        Mean score of the answers. Success: the score is 1.

    Arguments:
        dataset: name in reasoning-gym, as "chain_sum".
        size: how many questions.
        seed: of the questions.
        answer: where the answer is: "whole" (the response, without the space around it), "marker" (what follows the last
            ``marker``) or "tags" (in ``<answer>`` and ``</answer>``, as reasoning-gym's ``extract_answer`` finds it; the
            closing tag ends the episode).
        marker: the text that an answer follows.
        template: what is asked; ``{question}`` stands for the question.
        chat: write the template's text as a user's message by the tokenizer's chat template.
        reward: "scalar" or "dense".
        on_error: what a scorer that raises comes to (some do, on answers that nobody expected): "raise" passes the error on,
            "zero" scores 0 and counts the text in the metric ``unscored``.
        max_new_tokens: length limit; default: the longest of the dataset's own answers, as a response.
        tokenizer: default: one token per character of the dataset.
        config: arguments of the dataset, as ``min_terms=2``.

    Version history:
        v0: first version.
    """

    def __init__(
        self,
        dataset: str = "chain_sum",
        *,
        size: int = 500,
        seed: int = 0,
        answer: Literal["whole", "marker", "tags"] = "whole",
        marker: str = "Answer:",
        template: str = "{question}",
        chat: bool = False,
        reward: Literal["scalar", "dense"] = "scalar",
        on_error: Literal["raise", "zero"] = "raise",
        max_new_tokens: int | None = None,
        tokenizer: Any = None,
        **config: Any,
    ) -> None:
        for name, value, allowed in (
            ("answer", answer, ("whole", "marker", "tags")),
            ("reward", reward, ("scalar", "dense")),
            ("on_error", on_error, ("raise", "zero")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed are {', '.join(map(repr, allowed))}")
        if "{question}" not in template or not marker:
            raise ValueError(f"template is {template!r} and marker {marker!r}; give a template with {{question}}, and a marker")
        if chat and tokenizer is None:
            raise ValueError("chat is True, but the default tokenizer has no chat template; give a tokenizer that has one")
        self.answer, self.marker, self.template, self.chat = answer, marker, template, chat
        self.reward, self.on_error = reward, on_error
        self.stop = _TAGS[1:] if answer == "tags" else ()
        library = _library()
        self.dataset = _create(library, dataset, size=size, seed=seed, **config)
        self._extract = library.utils.extract_answer
        self.entries = [self.dataset[i] for i in range(size)]
        questions = [template.replace("{question}", entry["question"]) for entry in self.entries]
        responses = [self.respond(entry) for entry in self.entries if isinstance(entry["answer"], str)]
        if tokenizer is None:
            tokenizer = symbol_tokenizer(sorted(set("".join([*questions, *responses]))))
        self.tokenizer = TextTokenizer(tokenizer)
        if not responses and max_new_tokens is None:
            raise ValueError(
                f"dataset {dataset!r} has no answers of its own to take the length limit from; give max_new_tokens"
            )
        self.prompts = [self._prompt(*pair) for pair in zip(questions, self.entries, strict=True)]
        self.max_prompt_tokens = max(len(np.asarray(prompt.ids)) for prompt in self.prompts)
        longest = max((len(self.tokenizer.encode(response)) for response in responses), default=0)
        self.max_new_tokens = longest + 1 if max_new_tokens is None else max_new_tokens

    def sample(self, rng: np.random.Generator) -> Prompt:
        """Draw a question."""
        return self.prompts[int(rng.integers(len(self.prompts)))]

    def rewards(self, episodes: Sequence[Episode]) -> Sequence[Reward]:
        """Give the dataset's score, or one number per token; see the datasheet."""
        if self.reward == "scalar":
            return [self.judge(episode) for episode in episodes]
        return [self._differences(episode) for episode in episodes]

    def success(self, episode: Episode) -> bool:
        """Say whether the dataset's score is 1."""
        return self.judge(episode) > 1 - _ROUNDING

    def score(self, episodes: Sequence[Episode]) -> float:
        """Mean score of the dataset."""
        return float(np.mean([self.judge(episode) for episode in episodes])) if episodes else 0.0

    def metrics(self, episodes: Sequence[Episode]) -> Mapping[str, float]:
        """Share of texts in which an answer was found, and of those whose answer the dataset could not score."""
        found = [self.find(episode.text) is not None for episode in episodes]
        unscored = [self._score(self.find(e.text), e.prompt.metadata["entry"]) is None for e in episodes]
        share = {"answered": found, "unscored": unscored} if self.on_error == "zero" else {"answered": found}
        return {name: float(np.mean(values)) if values else 0.0 for name, values in share.items()}

    def demonstrations(self, rng: np.random.Generator, count: int) -> Sequence[tuple[Prompt, str]]:
        """Draw questions with the dataset's own answers; none where it has none, or where they exceed the length limit."""
        answered = [
            (prompt, response)
            for prompt, entry in zip(self.prompts, self.entries, strict=True)
            if isinstance(entry["answer"], str)
            and len(self.tokenizer.encode(response := self.respond(entry))) < self.max_new_tokens
        ]
        return [answered[int(i)] for i in rng.integers(len(answered), size=count)] if answered else []

    def respond(self, entry: Mapping[str, Any]) -> str:
        """Write the dataset's answer as a response."""
        if self.answer == "tags":
            return entry["answer"].join(_TAGS)
        return entry["answer"] if self.answer == "whole" else f"{self.marker} {entry['answer']}"

    def find(self, text: str) -> str | None:
        """Find the answer in a response; None where there is none."""
        if self.answer == "whole":
            return text.strip()
        if self.answer == "tags":
            return self._extract(text)
        _, marked, rest = text.rpartition(self.marker)
        return rest.strip() if marked else None

    def judge(self, episode: Episode) -> float:
        """Give the dataset's own score of the answer in a response, in [0, 1]."""
        return self._score(self.find(episode.text), episode.prompt.metadata["entry"]) or 0.0

    def _score(self, answer: str | None, entry: Mapping[str, Any]) -> float | None:
        """Ask the dataset; None where it raises and that is allowed."""
        try:
            score = float(self.dataset.score_answer(answer, entry))
        except Exception as error:
            if self.on_error == "zero":
                return None
            error.add_note(f"reasoning-gym could not score the answer {answer!r}; on_error='zero' scores such answers 0")
            raise
        if not 0 <= score <= 1 + _ROUNDING:
            raise ValueError(f"reasoning-gym scored the answer {answer!r} {score}; scores are numbers from 0 to 1")
        return min(score, 1.0)

    def _differences(self, episode: Episode) -> npt.NDArray[np.float64]:
        """Give each token the score of the text up to it less the score before it; the sum is the score.

        What an empty response would earn is the first token's.
        """
        entry = episode.prompt.metadata["entry"]
        known: dict[str | None, float] = {}
        scores = [0.0]
        for end in episode.offsets[:, 1].tolist():
            answer = self.find(episode.text[:end])
            if answer not in known:
                known[answer] = self._score(answer, entry) or 0.0
            scores.append(known[answer])
        return np.diff(scores)

    def _prompt(self, question: str, entry: Mapping[str, Any]) -> Prompt:
        text, ids = question, None
        if self.chat:
            text, ids = self.tokenizer.chat([{"role": "user", "content": question}])
        return Prompt(text, self.tokenizer.encode(text) if ids is None else ids, {"entry": entry})


def _library() -> Any:
    """Import reasoning-gym: here, as only this task needs it."""
    try:
        return importlib.import_module("reasoning_gym")
    except ModuleNotFoundError as error:
        raise ValueError("this task needs reasoning-gym, which is not installed: pip install 'textgym[reasoning]'") from error


def _create(library: Any, name: str, **config: Any) -> Any:
    try:
        return library.create_dataset(name, **config)
    except (AssertionError, TypeError, ValueError) as error:  # what it says of a wrong name or argument
        close = difflib.get_close_matches(name, library.factory.DATASETS, n=1)
        hint = f". Did you mean {close[0]!r}?" if close and close[0] != name else ""
        raise ValueError(f"reasoning-gym refuses the dataset {name!r} with {config}: {error}{hint}") from error

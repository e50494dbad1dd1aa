"""The checks of ``checks``, one function each: it raises where a task or a reward breaks its promise.

Left out on purpose: what to do about several faults at once; each probe stands for itself and says the next step.
"""

from __future__ import annotations

import copy
import difflib
import random
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from textgym.credit import Assigner
from textgym.env import TextGenEnv
from textgym.episode import Episode, Prompt
from textgym.info import release, releases
from textgym.rewards import NonCausalSplitWarning, resolve
from textgym.rules import RUNNING, Rules
from textgym.task import Task
from textgym.text import Text
from textgym.vector import TextGenVectorEnv


class Sampled(NamedTuple):
    """A text that was played, and the tokens of the agent that lead to it."""

    episode: Episode
    actions: list[int]


@dataclass
class Probe:
    """What is examined."""

    rules: Rules
    seed: int
    assigner: Assigner | None = None
    played: list[Sampled] = field(default_factory=list)

    @property
    def episodes(self) -> list[Episode]:
        """The texts that were played."""
        return [sampled.episode for sampled in self.played]


def play_random(rules: Rules, count: int, seed: int) -> list[Sampled]:
    """Play random texts of all lengths: empty ones, long ones, ones that are cut; nothing is rewarded."""
    rng = np.random.default_rng(seed)
    out = []
    for number in range(count):
        prompt = rules.prompt(rng, {}, number)
        ends_soon = [1.0, 0.2, 0.02, 0.0][number % 4]  # chance of end-of-text at each token

        def act(chance: float = ends_soon) -> int:
            return rules.eos_token_id if rng.random() < chance else int(rng.integers(rules.vocab_size))

        out.append(_play(rules, prompt, act, number))
    return out


def play_texts(rules: Rules, texts: Sequence[str]) -> list[Sampled]:
    """Play given texts, each closed by end-of-text where nothing ended it before."""
    rng = np.random.default_rng(0)
    prompts = [rules.prompt(rng, {}, number) for number in range(len(texts))]
    out = []
    for prompt, text in zip(prompts, texts, strict=True):
        out.append(_replay(rules, prompt, rules.tokenizer.encode(text).tolist()))
        written = out[-1].episode.text
        assert rules.has_turns or written == text, f"the text {text!r} ends as {written!r}; shorten it or raise max_new_tokens"
    return out


def play_demonstrations(rules: Rules, seed: int, count: int = 16) -> list[Sampled]:
    """Play the task's demonstrations as it would play them itself.

    Raises:
        AssertionError: one is not a text that the environment ends, as it stands, at its last token.
    """
    out = []
    for prompt, response in rules.task.demonstrations(np.random.default_rng(seed), count):
        given = rules.prompt(np.random.default_rng(seed), {"prompt": prompt}, 0)
        ids, agent_mask = rules.demonstration(given, response)
        played = _replay(rules, given, ids[agent_mask].tolist())
        episode = played.episode
        assert np.array_equal(episode.ids, ids) and np.array_equal(episode.agent_mask, agent_mask), (
            f"the demonstration {response!r} was played as {episode.text!r}, ended by {episode.ended_by}; they are whole "
            "responses, as they end by end-of-text, a stop string, a limit or the task, with the replies that it would give"
        )
        out.append(played)
    return out


def _replay(rules: Rules, prompt: Prompt, actions: Sequence[int]) -> Sampled:
    """Play the given tokens, and end-of-text after them until the text has ended."""
    left = iter(actions)
    return _play(rules, prompt, lambda: next(left, rules.eos_token_id), 0)


def _play(rules: Rules, prompt: Prompt, act: Callable[[], int], number: int) -> Sampled:
    """Play one text by the rules, without rewards; asks the task for replies and endings, as an environment would."""
    text = Text(rules, prompt, number)
    actions: list[int] = []
    code = RUNNING
    while code == RUNNING:
        actions.append(act() if rules.masks is None else rules.masks.nearest(text.mask_number, act()))
        code = text.write(actions[-1])
    return Sampled(text.episode(code), actions)


def _prompts_are_repeatable(probe: Probe) -> None:
    def draw() -> list[tuple[str, list[int], str]]:
        rng = np.random.default_rng(probe.seed)
        prompts = [probe.rules.prompt(rng, {}, i) for i in range(16)]
        return [(prompt.text, np.asarray(prompt.ids).tolist(), repr(dict(prompt.metadata))) for prompt in prompts]

    for first, second in zip(draw(), draw(), strict=True):
        assert first == second, (
            f"task.sample gave {second} where it had given {first} for the same generator state; draw text and metadata "
            "from the generator that it is handed, nothing else"
        )


def _global_random_state_is_left_alone(probe: Probe) -> None:
    torch = sys.modules.get("torch")

    def state() -> tuple[Any, ...]:
        legacy = np.random.get_state(legacy=False)  # noqa: NPY002
        return random.getstate(), str(legacy), None if torch is None else torch.random.get_rng_state().tolist()

    kept = random.getstate(), np.random.get_state(), None if torch is None else torch.random.get_rng_state()  # noqa: NPY002
    random.random()  # so that seeding it anew to what it was is seen
    np.random.random()  # noqa: NPY002
    before = state()
    task, episodes = probe.rules.task, probe.episodes[:8]
    probe.rules.prompt(np.random.default_rng(probe.seed), {}, 0)
    for judge in (task.rewards, task.streams, task.score):
        judge(episodes)
    task.demonstrations(np.random.default_rng(probe.seed), 2)
    for sampled in probe.played[:8]:
        task.success(sampled.episode)
        _replay(probe.rules, sampled.episode.prompt, sampled.actions)
    touched = state() != before
    random.setstate(kept[0])
    np.random.set_state(kept[1])  # noqa: NPY002
    if torch is not None:
        torch.random.set_rng_state(kept[2])
    assert not touched, (
        "the task uses or seeds global random state, which its neighbours share; use the generator that sample and "
        "demonstrations are handed"
    )


def _prompts_are_left_alone(probe: Probe) -> None:
    for sampled in probe.played:
        before = copy.deepcopy(dict(sampled.episode.prompt.metadata))
        probe.rules.task.rewards([sampled.episode])
        after = dict(sampled.episode.prompt.metadata)
        assert repr(before) == repr(after), (
            f"task.rewards changed the metadata of its prompt from {before} to {after}; prompts are shared between episodes"
        )


def _rewards_resolve(probe: Probe) -> None:
    for episode in probe.episodes:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NonCausalSplitWarning)
                probe.rules.release([episode], [0])
        except Exception as error:
            error.add_note(f"(the text is {episode.text!r}, ended by {episode.ended_by})")
            raise


def _rewards_are_repeatable(probe: Probe) -> None:
    for first, second in zip(_paid(probe, probe.episodes), _paid(probe, probe.episodes), strict=True):
        assert np.array_equal(first, second), (
            "task.rewards paid the same texts otherwise the second time; a reward is a function of the text"
        )


def _rewards_do_not_depend_on_the_batch(probe: Probe) -> None:
    together = _paid(probe, probe.episodes)
    alone = [_paid(probe, [episode])[0] for episode in probe.episodes]
    reverse = _paid(probe, probe.episodes[::-1])[::-1]
    for episode, one, other, third in zip(probe.episodes, together, alone, reverse, strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-6) and np.allclose(one, third, rtol=1e-5, atol=1e-6), (
            f"the reward of {episode.text!r} depends on the texts beside it in the batch: {one.tolist()} among them, "
            f"{other.tolist()} alone; batches are whatever ended in one step"
        )


def _paid(probe: Probe, episodes: Sequence[Episode]) -> list[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonCausalSplitWarning)
        resolved = resolve(probe.rules.task.rewards(episodes), episodes, probe.rules.task.weights)
    return [item.token_rewards for item in resolved]


def _streams_are_as_causal_as_declared(probe: Probe) -> None:
    if not probe.rules.task.causal_streams:
        return
    rng = np.random.default_rng(probe.seed)
    for sampled in [sampled for sampled in probe.played if len(sampled.actions) > 1]:
        whole = _streams(probe, sampled.episode)
        for kept in sorted({int(cut) for cut in rng.integers(1, len(sampled.actions), size=4)}):
            ends = sampled.actions[:kept]  # end-of-text follows
            goes_on = [*ends, *rng.integers(probe.rules.vocab_size, size=64).tolist()]
            written = int(np.flatnonzero(sampled.episode.agent_mask)[kept - 1]) + 1
            for actions in (ends, goes_on):
                other = _replay(probe.rules, sampled.episode.prompt, actions).episode
                first, second = whole[:written], _streams(probe, other)[:written]
                assert np.array_equal(first, second), (
                    f"{sampled.episode.text!r} and {other.text!r} begin with the same {written} tokens, in streams "
                    f"{first.tolist()} and {second.tolist()}: what comes later decides; set causal_streams = False (agents "
                    "then want gae_lambda = 1), or give streams by what stands before a token"
                )


def _streams(probe: Probe, episode: Episode) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonCausalSplitWarning)
        return probe.rules.release([episode], [0])[0].streams


def _endings_are_repeatable(probe: Probe) -> None:
    for sampled in reversed(probe.played):  # in another order: what counts its calls may repeat itself in the same one
        one, other = sampled.episode, _replay(probe.rules, sampled.episode.prompt, sampled.actions).episode
        assert np.array_equal(one.ids, other.ids) and one.ended_by == other.ended_by, (
            f"the same tokens made {one.text!r}, ended by {one.ended_by}, and then {other.text!r}, ended by {other.ended_by}; "
            "ended and reply are functions of the text"
        )


def _demonstrations_are_texts_that_the_environment_ends(probe: Probe) -> None:
    first, second = (play_demonstrations(probe.rules, probe.seed) for _ in range(2))
    assert [sampled.actions for sampled in first] == [sampled.actions for sampled in second], (
        "task.demonstrations gave others for the same generator state; draw from the generator that it is handed, nothing else"
    )


def _verdicts_are_in_range(probe: Probe) -> None:
    task = probe.rules.task
    for episode in probe.episodes:
        verdict, again = task.success(episode), task.success(episode)
        assert isinstance(verdict, bool | np.bool_), f"task.success gave {verdict!r}; give a bool"
        assert verdict == again, f"task.success gave {verdict} and {again} for {episode.text!r}; it is a function of the text"
    score = task.score(probe.episodes)
    assert isinstance(score, int | float | np.number) and 0 <= float(score) <= 1, (
        f"task.score gave {score!r} over {len(probe.played)} texts; give a number in [0, 1]"
    )
    for name, value in dict(task.metrics(probe.episodes)).items():
        assert isinstance(name, str) and isinstance(value, int | float | np.number), (
            f"task.metrics has {name!r}: {value!r}; give names and numbers"
        )


def _both_doors_agree(probe: Probe) -> None:
    rules = probe.rules
    env, envs = TextGenEnv(rules.task), TextGenVectorEnv(1, rules.task, autoreset_mode=AutoresetMode.DISABLED)
    for number, sampled in enumerate(probe.played[:8]):
        options = {"prompt": sampled.episode.prompt}
        info, infos = env.reset(seed=number, options=options)[1], envs.reset(seed=number, options=options)[1]
        reward = rewards = 0.0
        for action in sampled.actions:
            _, reward, _, _, info = env.step(action)
            _, rewards, _, _, infos = envs.step(np.array([action]))
        one, other = release(info), releases(infos)
        assert one is not None and len(other) == 1, f"the text {sampled.episode.text!r} ended in one door and not in the other"
        assert np.array_equal(one.token_rewards, other[0].token_rewards) and np.array_equal(one.streams, other[0].streams), (
            f"the single environment released {one.token_rewards.tolist()} for {sampled.episode.text!r} and the vector "
            f"environment {other[0].token_rewards.tolist()}"
        )
        assert (
            abs(reward - float(one.token_rewards.sum(dtype=np.float64))) <= 1e-5 * max(1.0, abs(reward)) and reward == rewards
        )


class _Obedient(TextGenEnv):
    def step(self, action: Any) -> Any:
        masks, text = self.rules.masks, self._text  # the checker plays any token
        return super().step(action if masks is None or text is None else masks.nearest(text.mask_number, action))


def _gymnasium_accepts_it(probe: Probe) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_env(_Obedient(probe.rules.task), skip_render_check=True)


def _it_can_be_copied(probe: Probe) -> None:
    try:
        copy.deepcopy(probe.rules.task)
    except Exception as error:
        raise AssertionError(
            f"the task cannot be copied ({error}), which Gymnasium does with arguments of make; give what it holds a "
            "__deepcopy__ that returns itself"
        ) from error


def _names_are_spelled_as_they_are_read(probe: Probe) -> None:
    known = [name for name in dir(Task) if not name.startswith("_")]
    fixed = {name for name, value in vars(type(probe.rules.task)).items() if not (name.startswith("_") or callable(value))}
    for name in sorted(fixed - set(known)):
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.9)
        assert not close, f"the task has {name!r}, which nobody reads; did you mean {close[0]!r}?"


REWARD_CHECKS: dict[str, Callable[[Probe], None]] = {
    "rewards": _rewards_resolve,
    "repeatable rewards": _rewards_are_repeatable,
    "rewards alone as in a batch": _rewards_do_not_depend_on_the_batch,
    "global random state": _global_random_state_is_left_alone,
    "prompts left alone": _prompts_are_left_alone,
    "causal streams": _streams_are_as_causal_as_declared,
}
TASK_CHECKS: dict[str, Callable[[Probe], None]] = {
    "repeatable prompts": _prompts_are_repeatable,
    **REWARD_CHECKS,
    "repeatable endings": _endings_are_repeatable,
    "demonstrations": _demonstrations_are_texts_that_the_environment_ends,
    "names": _names_are_spelled_as_they_are_read,
    "verdicts": _verdicts_are_in_range,
    "doors": _both_doors_agree,
    "copies": _it_can_be_copied,
    "gymnasium": _gymnasium_accepts_it,
}

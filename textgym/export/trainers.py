"""Episodes with token rewards in the shapes that other trainers take: TRL, verl, SkyRL, verifiers.

All is numpy and plain lists; none of these libraries is imported. What a shape cannot carry and a learner would miss
(streams, the bootstrap of a truncated episode) is refused until the caller names it in ``lose``.

Left out on purpose: log-probs, which these trainers compute again or take from their own engine; critics, because the
default advantages here are plain rewards to go, and better ones can be handed in.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Release

Pairs: TypeAlias = Sequence[tuple[Episode, Release]]
Loss: TypeAlias = Literal["streams", "truncation"]


def rewards_to_go(release: Release) -> npt.NDArray[np.float64]:
    """Add up, for each agent token, its own reward and the later ones of its stream: float64 (T,), 0 on environment tokens.

    ``A(t) = sum of r(u) over u >= t with stream(u) == stream(t)``: advantages with gamma = lambda = 1 and no baseline.
    """
    out = np.zeros(release.num_tokens)
    for stream in np.unique(release.streams[release.agent_mask]):
        mine = release.agent_mask & (release.streams == stream)
        out[mine] = np.cumsum(release.token_rewards[mine][::-1], dtype=np.float64)[::-1]
    return out


def to_trl(
    pairs: Pairs,
    *,
    pad_token_id: int,
    advantages: Sequence[npt.ArrayLike] | None = None,
    lose: Collection[Loss] = (),
) -> dict[str, npt.NDArray[Any]]:
    """Make what TRL's ``GRPOTrainer`` computes its loss from, with advantages per token instead of per text.

    Args:
        pairs: E episodes with their releases.
        pad_token_id: fills what is not a token; masked everywhere.
        advantages: float (T,) per episode; default: ``rewards_to_go``, which keeps streams apart.
        lose: "truncation" lets rewards to go stand in for advantages of truncated episodes, which lack their bootstrap.

    Returns:
        ``prompt_ids``, ``prompt_mask`` (E, longest prompt), padded left; ``completion_ids``, ``completion_mask``, ``tool_mask``
        (0 on environment tokens, 1 on padding, as TRL has it), ``advantages`` and ``token_rewards`` float32 (E, longest
        response), padded right; ``num_items_in_batch`` (), the agent tokens. Integers are int64.

    Raises:
        ValueError: there is no episode, or what cannot be carried was not given up.
    """
    _check(pairs)
    if advantages is None:
        _refuse(pairs, lose, ("truncation",), "TRL's loss", "hand in advantages that bootstrap")
    credit = _credit(pairs, advantages)
    prompt_ids, prompt_mask = _left([_prompt_ids(episode) for episode, _ in pairs], pad_token_id)
    completion_ids, completion_mask = _right([episode.ids for episode, _ in pairs], pad_token_id)
    tool_mask, _ = _right([episode.agent_mask.astype(np.int64) for episode, _ in pairs], 1)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "tool_mask": tool_mask,
        "advantages": _right(credit, 0.0)[0].astype(np.float32),
        "token_rewards": _right([release.token_rewards for _, release in pairs], 0.0)[0],
        "num_items_in_batch": np.array((completion_mask * tool_mask).sum()),
    }


def to_verl(
    pairs: Pairs,
    *,
    pad_token_id: int,
    prompt_length: int | None = None,
    response_length: int | None = None,
    lose: Collection[Loss] = (),
) -> dict[str, npt.NDArray[Any]]:
    """Make the batch of a verl rollout, P prompt and R response columns, scored per token.

    verl computes returns itself, over the whole text and with no bootstrap.

    Args:
        pairs: E episodes with their releases.
        pad_token_id: fills what is not a token.
        prompt_length: P; default: the longest prompt.
        response_length: R; default: the longest response.
        lose: "streams" lets texts of several streams go as one; "truncation" lets truncated episodes go as finished ones.

    Returns:
        ``prompts`` (E, P), padded left; ``responses``, ``response_mask`` (0 on environment tokens), (E, R), padded right;
        ``input_ids``, ``attention_mask``, ``position_ids`` (E, P + R); ``rm_scores`` and ``token_level_scores``, the same
        float32 (E, R): rollouts give the former, the trainer copies it to the latter; ``uid`` str (E,), episodes of one
        group alike: the only one that belongs to ``non_tensor_batch``. Integers are int64.

    Raises:
        ValueError: there is no episode, one is longer than P or R, or what cannot be carried was not given up.
    """
    _check(pairs)
    _refuse(pairs, lose, ("streams", "truncation"), "verl's batch", "use to_trl, which takes advantages per token")
    prompts, prompt_mask = _left([_prompt_ids(episode) for episode, _ in pairs], pad_token_id, prompt_length, "prompt_length")
    responses, held = _right([episode.ids for episode, _ in pairs], pad_token_id, response_length, "response_length")
    mask, _ = _right([episode.agent_mask.astype(np.int64) for episode, _ in pairs], 0, response_length)
    scores, _ = _right([release.token_rewards for _, release in pairs], 0.0, response_length)
    attention_mask = np.concatenate([prompt_mask, held], axis=1)
    groups = [f"group {r.group_id}" if r.group_id >= 0 else f"episode {r.episode_id}" for _, r in pairs]
    return {
        "prompts": prompts,
        "responses": responses,
        "response_mask": mask,
        "input_ids": np.concatenate([prompts, responses], axis=1),
        "attention_mask": attention_mask,
        "position_ids": np.maximum(attention_mask.cumsum(axis=1) - 1, 0),
        "rm_scores": scores,
        "token_level_scores": scores.copy(),
        "uid": np.array(groups, dtype=object),
    }


def to_skyrl(pairs: Pairs, *, lose: Collection[Loss] = ()) -> dict[str, Any]:
    """Make SkyRL's ``GeneratorOutput`` with rewards per token; it pads and computes advantages itself.

    Args:
        pairs: E episodes with their releases.
        lose: "streams" lets texts of several streams go as one; "truncation" lets truncated episodes go as finished ones.

    Returns:
        ``prompt_token_ids``, ``response_ids``, ``rewards``, ``loss_masks`` (0 on environment tokens): E lists each;
        ``stop_reasons``: "length" where that ended the text, else "stop"; what its engine would add (metrics, log-probs,
        ids of its own dataset) is None.

    Raises:
        ValueError: there is no episode, or what cannot be carried was not given up.
    """
    _check(pairs)
    _refuse(pairs, lose, ("streams", "truncation"), "SkyRL's output", "use to_trl, which takes advantages per token")
    return {
        "prompt_token_ids": [_prompt_ids(episode).tolist() for episode, _ in pairs],
        "response_ids": [episode.ids.tolist() for episode, _ in pairs],
        "rewards": [release.token_rewards.tolist() for _, release in pairs],
        "loss_masks": [episode.agent_mask.astype(np.int64).tolist() for episode, _ in pairs],
        "stop_reasons": ["length" if episode.ended_by == "length" else "stop" for episode, _ in pairs],
        "rollout_metrics": None,
        "rollout_logprobs": None,
        "trajectory_ids": None,
    }


def to_verifiers(pairs: Pairs, *, advantages: Sequence[npt.ArrayLike] | None = None) -> list[dict[str, Any]]:
    """Make the records of verifiers' traces (schema 1), which ``WireTrace.model_validate`` reads.

    A trace is a chain of messages with tokens: the prompt (one user message: a template's tokens cannot be told apart by
    message), the agent's turns, the replies between them (as user messages). Everything is carried; token rewards, streams
    and turns stand in ``info["textgym"]``, which no trainer reads.

    Args:
        pairs: E episodes with their releases.
        advantages: float (T,) per episode, for the agent's nodes; default: ``rewards_to_go``.

    Returns:
        E JSON-ready records. ``rewards["textgym"]`` is the sum of the token rewards, ``metrics`` are the criteria before
        their weights.

    Raises:
        ValueError: there is no episode, or a prompt's metadata are nothing that JSON can hold; names the episode.
    """
    _check(pairs)
    for episode, _ in pairs:
        try:
            json.dumps(dict(episode.prompt.metadata), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the prompt's metadata of episode {episode.episode_id} has what JSON has not ({error}): "
                f"{dict(episode.prompt.metadata)!r}; keep to plain numbers, texts, lists and dicts"
            ) from error
    return [_trace(*pair, credit) for pair, credit in zip(pairs, _credit(pairs, advantages), strict=True)]


def _trace(episode: Episode, release: Release, credit: npt.NDArray[np.float64]) -> dict[str, Any]:
    prompt_ids = _prompt_ids(episode).tolist()
    prompt = {"role": "user", "content": episode.prompt.text}
    nodes = [{"parent": None, "message": prompt, "token_ids": prompt_ids, "mask": [False] * len(prompt_ids)}]
    edges = np.flatnonzero(np.diff(episode.agent_mask)) + 1
    written = 0
    for tokens in np.split(np.arange(len(episode.ids)), edges) if len(episode.ids) else []:
        end = max(written, int(episode.offsets[tokens[-1], 1]))
        mine = bool(episode.agent_mask[tokens[0]])
        node = {
            "parent": len(nodes) - 1,
            "message": {"role": "assistant" if mine else "user", "content": episode.text[written:end]},
            "sampled": mine,
            "token_ids": episode.ids[tokens].tolist(),
            "mask": [mine] * len(tokens),
        }
        nodes.append(node | ({"advantages": credit[tokens].tolist()} if mine else {}))
        written = end
    ours = {
        "token_rewards": release.token_rewards.tolist(),
        "streams": release.streams.tolist(),
        "turns": episode.turns.tolist(),
        "ended_by": episode.ended_by,
        "truncated": release.truncated,
        "is_success": release.is_success,
        "episode_id": release.episode_id,
        "group_id": release.group_id,
    }
    return {
        "version": 1,
        "task": {"type": "textgym", "data": {"prompt": episode.prompt.text, "metadata": dict(episode.prompt.metadata)}},
        "agent": {"config": {}},
        "nodes": nodes,
        "rewards": {"textgym": {"score": float(release.token_rewards.sum(dtype=np.float64)), "weight": 1.0}},
        "metrics": dict(release.criteria),
        "info": {"textgym": ours},
        "is_completed": True,
        "ok": True,
        "stop_condition": "max_output_tokens" if episode.ended_by == "length" else "agent_completed",
    }


def _check(pairs: Pairs) -> None:
    if len(pairs) == 0:
        raise ValueError("there is no episode to export; give pairs (Episode, Release), as textgym_agents.evaluate.play does")
    for episode, release in pairs:
        same = episode.episode_id == release.episode_id and np.array_equal(episode.agent_mask, release.agent_mask)
        if not same or not len(episode.ids) == len(release.token_rewards) == release.num_tokens:
            raise ValueError(
                f"episode {episode.episode_id} of {len(episode.ids)} tokens stands beside the release of episode "
                f"{release.episode_id} of {release.num_tokens} tokens; pair each episode with its own release"
            )


def _refuse(pairs: Pairs, lose: Collection[str], cannot: Sequence[str], where: str, instead: str) -> None:
    """Raise where an episode has what the format has no place for and the caller has not given it up."""
    for name in lose:
        if name not in cannot:
            raise ValueError(f"lose names {name!r}; what {where} can lose is {', '.join(cannot)}")
    for episode, release in pairs:
        streams = np.unique(release.streams[release.agent_mask]).tolist()
        if "streams" in cannot and "streams" not in lose and len(streams) > 1:
            raise ValueError(
                f"episode {episode.episode_id} has streams {streams}, and {where} has no place for them: its returns would run "
                f"through all of them; {instead}, or say lose=('streams',)"
            )
        if "truncation" not in lose and release.truncated:
            raise ValueError(
                f"episode {episode.episode_id} was truncated, and {where} would take it for finished, with no bootstrap; "
                f"{instead}, or say lose=('truncation',)"
            )


def _credit(pairs: Pairs, advantages: Sequence[npt.ArrayLike] | None) -> list[npt.NDArray[np.float64]]:
    if advantages is None:
        return [rewards_to_go(release) for _, release in pairs]
    if len(advantages) != len(pairs):
        raise ValueError(f"there are {len(advantages)} arrays of advantages for {len(pairs)} episodes; give one per episode")
    given = [np.asarray(array, dtype=np.float64) for array in advantages]
    for array, (episode, _) in zip(given, pairs, strict=True):
        if array.shape != (len(episode.ids),) or not np.isfinite(array).all() or array[~episode.agent_mask].any():
            raise ValueError(
                f"advantages of episode {episode.episode_id} have shape {array.shape}; give ({len(episode.ids)},) finite "
                "numbers, 0 on the environment's tokens"
            )
    return given


def _prompt_ids(episode: Episode) -> npt.NDArray[np.int64]:
    if episode.prompt.ids is None:
        raise ValueError(f"the prompt of episode {episode.episode_id} has no ids; textgym.prompts.encode_prompt sets them")
    return np.asarray(episode.prompt.ids, dtype=np.int64)


def _right(
    rows: Sequence[npt.NDArray[Any]], fill: float, length: int | None = None, name: str = "length"
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Pad rows at their ends. Returns (E, length) of the rows' type, and int64 (E, length): 1 where a row has something."""
    longest = max(len(row) for row in rows)
    size = longest if length is None else length
    if longest > size:
        raise ValueError(f"{name} is {size} but the longest has {longest} tokens; raise it (nothing is cut)")
    out = np.full((len(rows), size), fill, dtype=rows[0].dtype)
    mask = np.zeros((len(rows), size), dtype=np.int64)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return out, mask


def _left(
    rows: Sequence[npt.NDArray[Any]], fill: float, length: int | None = None, name: str = "length"
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Pad rows at their beginnings; as ``_right``."""
    out, mask = _right([row[::-1] for row in rows], fill, length, name)
    return out[:, ::-1].copy(), mask[:, ::-1].copy()

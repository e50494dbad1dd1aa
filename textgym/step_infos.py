"""What a step of the vector door says of endings and releases: arrays, as Gymnasium has them, or the objects themselves.

Left out on purpose: autoreset modes (``vector`` puts what ended into ``final_info``) and reading, which is ``info``'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from textgym.episode import Episode, Release
from textgym.info import Ending, batch_infos, pending_info, release_infos, text_info
from textgym.rules import Rules


class ArrayInfos:
    """Arrays (N, ...) with a mask beside each: what ``SyncVectorEnv`` gives."""

    def __init__(self, rules: Rules, num_envs: int) -> None:
        self.rules = rules
        self.num_envs = num_envs

    def released(self, ended: Sequence[tuple[Episode, Release]]) -> dict[str, Any]:
        """Write episodes that ended and were rewarded in this step, in rising order of slots."""
        infos = release_infos([release for _, release in ended], self.num_envs, self.rules.max_response_tokens)
        return infos | self.texts([(release.slot, episode) for episode, release in ended])

    def pending(self, ended: Sequence[tuple[int, Episode]]) -> dict[str, Any]:
        """Write slots and episodes that ended in this step, in rising order, whose releases come later."""
        size = self.rules.max_response_tokens
        infos = [(slot, pending_info(episode, self.rules.truncates(episode), size)) for slot, episode in ended]
        return batch_infos(infos, self.num_envs) | self.texts(ended)

    def late(self, released: Sequence[tuple[Episode, Release]]) -> dict[str, Any]:
        """Write releases of episodes that ended earlier, at most one per slot."""
        late = self.released(released)
        return {"late": late, "_late": late["_token_rewards"].copy()}

    def dropped(self, failed: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Write slots and ids of episodes that will not be released."""
        return batch_infos([(slot, {"dropped": episode_id}) for slot, episode_id in failed], self.num_envs)

    def texts(self, ended: Sequence[tuple[int, Episode]]) -> dict[str, Any]:
        """Write what ``info_text=True`` adds."""
        if not self.rules.info_text:
            return {}
        return batch_infos([(slot, text_info(episode)) for slot, episode in ended], self.num_envs)


class ObjectInfos(ArrayInfos):
    """Lists of ``Ending`` and of ``Release``; texts, where asked for, stay arrays of objects."""

    def released(self, ended: Sequence[tuple[Episode, Release]]) -> dict[str, Any]:
        """Write ``ended`` and ``released``; see ``ArrayInfos.released``."""
        released = [release for _, release in ended]
        infos: dict[str, Any] = {
            "ended": [Ending(item.slot, item.episode_id, item.num_tokens, item.truncated) for item in released],
            "released": released,
        }
        return infos | self.texts([(release.slot, episode) for episode, release in ended])

    def pending(self, ended: Sequence[tuple[int, Episode]]) -> dict[str, Any]:
        """Write ``ended``, and ``release_pending``; see ``ArrayInfos.pending``."""
        endings = [Ending(slot, episode.episode_id, len(episode.ids), self.rules.truncates(episode)) for slot, episode in ended]
        return {"ended": endings, "release_pending": True} | self.texts(ended)

    def late(self, released: Sequence[tuple[Episode, Release]]) -> dict[str, Any]:
        """Write ``released``; texts stand under ``late``, apart from those of episodes that end in this step."""
        infos: dict[str, Any] = {"released": [release for _, release in released]}
        texts = self.texts([(release.slot, episode) for episode, release in released])
        return infos | ({"late": texts, "_late": texts["_text"].copy()} if texts else {})

    def dropped(self, failed: Sequence[tuple[int, int]]) -> dict[str, Any]:
        """Write ``dropped``, the ids."""
        return {"dropped": [episode_id for _, episode_id in failed]}


def infos_as(kind: str, rules: Rules, num_envs: int) -> ArrayInfos:
    """Choose how infos are written: "arrays" or "objects".

    Raises:
        ValueError: ``kind`` is neither.
    """
    kinds = {"arrays": ArrayInfos, "objects": ObjectInfos}
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(
            f"infos is {kind!r}; allowed are 'arrays', as Gymnasium's vector environments have them, and 'objects', for a "
            "driver in the same process that reads with textgym.releases(infos)"
        )
    return kinds[kind](rules, num_envs)

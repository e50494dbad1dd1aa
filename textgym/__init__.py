"""textgym: text generation as a Gymnasium environment with one retroactive reward per token.

Importing it registers the environment ids and loads neither torch nor transformers. It knows no model and no agent;
those are in ``textgym_agents``.
"""

from gymnasium.envs.registration import register

from textgym.action_masks import MaskTable
from textgym.env import TextGenEnv
from textgym.episode import Episode, Prompt, Release, Span
from textgym.info import dropped, release, releases
from textgym.ledger import Ledger
from textgym.names import resolve_name
from textgym.reward_form import RewardForm
from textgym.rewards import resolve
from textgym.task import PromptTask, Task, resolve_task
from textgym.tasks import TASKS
from textgym.tokenizer import TextTokenizer, symbol_tokenizer
from textgym.vector import TextGenVectorEnv

from textgym import checks, parts, vector_wrappers, wrappers  # isort: skip (they stand on all of the above)

__version__ = "0.1.0"
__all__ = [
    "Episode",
    "Ledger",
    "MaskTable",
    "Prompt",
    "PromptTask",
    "Release",
    "RewardForm",
    "Span",
    "Task",
    "TextGenEnv",
    "TextGenVectorEnv",
    "TextTokenizer",
    "checks",
    "dropped",
    "parts",
    "release",
    "releases",
    "resolve",
    "resolve_name",
    "resolve_task",
    "symbol_tokenizer",
    "vector_wrappers",
    "wrappers",
]


def _register(env_id: str, **kwargs: str) -> None:
    register(
        id=env_id, entry_point="textgym.env:TextGenEnv", vector_entry_point="textgym.vector:TextGenVectorEnv", kwargs=kwargs
    )


_register("TextGen-v0")
for _name, _target in TASKS.items():
    _register(f"textgym/{_target.partition(':')[2]}-v0", task=_name)

"""What many tests share: small tokenizers, hand-made episodes, no network."""

import inspect
import json
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_OFFLINE", "1")

from collections.abc import Callable, Sequence

import gymnasium
import gymnasium.wrappers.vector
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

import textgym
from textgym import Episode, Prompt, Release, Task, TextTokenizer, symbol_tokenizer

GYMNASIUM_COUNTS_SAME_STEP = "SAME_STEP" in inspect.getsource(gymnasium.wrappers.vector.RecordEpisodeStatistics)
"""Before 1.4 Gymnasium's own vector statistics took the first step after a SAME_STEP reset for the reset itself."""

# The same examples on every machine, however slow it is.
settings.register_profile("textgym", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("textgym")


def build_episode(
    text: str = "ab cd",
    offsets: Sequence[tuple[int, int]] | None = None,
    agent_mask: Sequence[bool] | None = None,
    episode_id: int = 7,
) -> Episode:
    """An episode of one token per character, unless offsets say otherwise."""
    offsets = [(i, i + 1) for i in range(len(text))] if offsets is None else offsets
    count = len(offsets)
    mask = [True] * count if agent_mask is None else agent_mask
    return Episode(
        prompt=Prompt("", np.array([0])),
        ids=np.arange(2, 2 + count),
        text=text,
        offsets=np.array(offsets, dtype=np.int64).reshape(count, 2),
        agent_mask=np.array(mask, dtype=np.bool_),
        turns=np.zeros(count, dtype=np.int64),
        ended_by="eos",
        episode_id=episode_id,
    )


def play_text(task: Task, text: str, eos: bool = True) -> Release | None:
    """Play ``text``, then perhaps end-of-text, through the scalar door; None where the episode did not end."""
    env = textgym.TextGenEnv(task)
    env.reset(seed=0)
    tokenizer = env.rules.tokenizer
    info = {}
    for action in [*tokenizer.encode(text), *([tokenizer.eos_token_id] if eos else [])]:
        _, _, terminated, truncated, info = env.step(int(action))
        if terminated or truncated:
            break
    return textgym.release(info)


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    return build_episode


@pytest.fixture(scope="session")
def letters() -> TextTokenizer:
    return symbol_tokenizer(list("abcdefgh .\n"))


@pytest.fixture(scope="session")
def byte_bpe() -> Tokenizer:
    """A byte-level BPE: every byte is a token, so random samples split characters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|pad|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(["hello world, the numbers are 12 and 99\n", "héllo wörld 😀 שלום"] * 8, trainer)
    return tokenizer


@pytest.fixture
def chat_tokenizer(byte_bpe) -> PreTrainedTokenizerFast:
    """A Hugging Face tokenizer that puts a begin-of-text token before all it encodes, as its chat template does itself."""
    backend = Tokenizer.from_str(byte_bpe.to_str())
    backend.add_special_tokens(["<s>", "<|turn|>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="<|endoftext|>")
    tokenizer.chat_template = (
        "{{ bos_token }}{% for message in messages %}{% if message.role == 'tool' %}{{ raise_exception('no tools here') }}"
        "{% endif %}<|turn|>{{ message.role }}: {{ message.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|turn|>assistant: {% endif %}"
    )
    return tokenizer


@pytest.fixture(scope="session")
def metaspace_bpe() -> Tokenizer:
    """A SentencePiece-like tokenizer: spaces are part of the following piece, bytes fall back to <0xNN>."""
    learned = Tokenizer(models.BPE())
    learned.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=100, show_progress=False)
    learned.train_from_iterator(["hello world, the numbers are 12 and 99", "he said so"] * 8, trainer)
    model = json.loads(learned.to_str())["model"]
    special = ["<unk>", "<s>", "</s>"]
    pieces = [*special, *(f"<0x{i:02X}>" for i in range(256)), *model["vocab"]]  # bytes are ordinary tokens, as in Llama's
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, byte_fallback=True))
    tokenizer.add_special_tokens(special)
    tokenizer.pre_tokenizer = learned.pre_tokenizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer

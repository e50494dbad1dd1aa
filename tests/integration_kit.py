"""What the tests of several libraries' glue share: a task with turns of every length, and the examples as modules."""

import importlib.util
from pathlib import Path

import numpy as np

import textgym

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
DIGITS = textgym.symbol_tokenizer([*"0123456789"])


def pay(episodes):
    """Pay each token by its place and its symbol, so that no two stand for each other."""
    return [[1.0 + place + token / 100 for place, token in enumerate(e.ids)] for e in episodes]


def part(episodes):
    """Even symbols are one stream, odd ones the other."""
    return [np.asarray(e.ids) % 2 for e in episodes]


def arguments(**more):
    """Arguments of an environment whose texts have 1 to 6 tokens in two streams, every one of them paid."""
    return {"prompts": ["1", "2"], "tokenizer": DIGITS, "reward_fn": pay, "streams_fn": part, "max_new_tokens": 6, **more}


def example(name):
    """Import ``examples/<name>.py``."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

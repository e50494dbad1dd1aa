import io

import numpy as np
from rich.console import Console

import textgym
from textgym.view.terminal import token_heatmap


def test_rewarded_tokens_are_coloured_and_numbered_and_special_ones_shown():
    env = textgym.TextGenEnv("number_duel")
    env.reset(seed=0)
    task = env.rules.task
    kept = []
    original = task.rewards
    task.rewards = lambda episodes: kept.extend(episodes) or original(episodes)
    for action in [*task.tokenizer.encode("A: 40\nB: db\n"), 1]:
        info = env.step(int(action))[4]
    text = token_heatmap(kept[0], textgym.release(info), task.tokenizer)
    assert text.plain == "A: 40(+1)⏎B: db(-1)⏎</s>"
    styles = {text.plain[span.start : span.end]: str(span.style) for span in text.spans}
    assert "rgb(0,200,0)" in styles["0"]
    assert "rgb(200,0,0)" in styles["b"]
    Console(file=io.StringIO()).print(text)


def test_tokens_of_the_environment_are_dim(make_episode):
    episode = make_episode("abc", agent_mask=[True, False, True])
    release = textgym.Release(0, 0, np.zeros(3, np.float32), np.array([0, -1, 0]), episode.agent_mask, 3, True, False, False, 0)
    text = token_heatmap(episode, release, textgym.symbol_tokenizer(["a"]))
    assert [str(span.style) for span in text.spans if str(span.style)] == ["dim"]

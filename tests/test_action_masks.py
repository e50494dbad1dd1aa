"""Action masks: a task's allowed tokens, the same through every door, and enforced."""

import gymnasium as gym
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import textgym
from textgym import MaskTable, Prompt, PromptTask, Task, TextTokenizer, symbol_tokenizer
from textgym.action_masks import ActionMasks
from textgym.checks import CheckError, check_task
from textgym.texts import Texts
from textgym.torch_store import DeviceMasks, TorchStore

LETTERS = symbol_tokenizer([*"abc"])  # <s> 0, </s> 1, a 2, b 3, c 4
A, B, C = LETTERS.encode("abc").tolist()
EOS = LETTERS.eos_token_id


def mask(*tokens):
    return np.isin(np.arange(len(LETTERS)), tokens)


class Rising(Task):
    """No letter comes before the last one written, nor before the prompt's; end-of-text is always allowed."""

    max_prompt_tokens, max_new_tokens = 1, 4
    tokenizer = LETTERS

    def __init__(self):
        self.token_masks = MaskTable(len(LETTERS))
        rows = {A: mask(EOS, A, B, C), B: mask(EOS, B, C), C: mask(EOS, C)}
        self.numbers = {token: self.token_masks.add(row) for token, row in rows.items()}

    def sample(self, rng):
        return Prompt("abc"[rng.integers(3)])

    def mask_numbers(self, prompts, responses):
        return [self.numbers[int([*p.ids, *ids][-1])] for p, ids in zip(prompts, responses, strict=True)]

    def rewards(self, episodes):
        return [float(len(episode.text)) for episode in episodes]


def constant(**kwargs):
    return PromptTask([""], LETTERS, lambda episodes: [0.0] * len(episodes), max_new_tokens=3, **kwargs)


def test_a_table_numbers_each_mask_once_and_number_0_allows_everything():
    table = MaskTable(len(LETTERS))
    assert table.add(np.ones(5, dtype=np.bool_)) == 0
    assert [table.add(mask(A)), table.add(mask(B)), table.add(mask(A)), table.add(mask(C))] == [1, 2, 1, 3]
    assert table.rows.tolist() == [[True] * 5, mask(A).tolist(), mask(B).tolist(), mask(C).tolist()]
    with pytest.raises(ValueError, match=r"shape \(4,\).*bool \(5,\)"):
        table.add(np.ones(4, dtype=np.bool_))
    with pytest.raises(ValueError, match="dtype int64"):
        table.add(np.ones(5, dtype=np.int64))


def test_a_task_without_masks_allows_everything():
    env = textgym.TextGenEnv(constant())
    assert env.rules.masks is None
    env.reset(seed=0)
    assert env.action_masks().all() and env.action_masks().shape == (5,)
    assert textgym.TextGenVectorEnv(3, constant()).action_masks().all()


@pytest.mark.parametrize("mode", ["SameStep", "NextStep", "Disabled"])
@given(seed=st.integers(0, 2**16))
def test_every_door_gives_the_same_masks_in_every_mode(mode, seed):
    single = gym.vector.SyncVectorEnv(
        [lambda: textgym.TextGenEnv(Rising(), observation="dict")] * 3, autoreset_mode=gym.vector.AutoresetMode(mode)
    )
    doors = [
        textgym.TextGenVectorEnv(3, Rising(), autoreset_mode=mode, observation="dict", output=output)
        for output in ("numpy", "torch")
    ]
    rng = np.random.default_rng(seed)
    obs = [env.reset(seed=seed)[0] for env in (single, *doors)]
    for _ in range(8):
        masks = np.stack(single.call("action_masks"))
        for door, seen in zip([single, *doors], obs, strict=True):
            assert np.array_equal(np.asarray(seen["action_mask"]), masks)
            if door is not single:
                assert np.array_equal(np.asarray(door.action_masks()), masks)
                assert np.array_equal(door.rules.masks.table.rows[door.mask_numbers], masks)
        actions = np.array([rng.choice(np.flatnonzero(row)) for row in masks])
        steps = [env.step(actions) for env in (single, *doors)]
        obs = [step[0] for step in steps]
        if mode == "Disabled" and (done := steps[0][2]).any():
            obs = [env.reset(options={"reset_mask": done.copy()})[0] for env in (single, *doors)]


@pytest.mark.parametrize("output", ["numpy", "torch", "store on a device"])
def test_a_forbidden_token_is_named_with_what_is_allowed_and_nothing_is_written(output):
    envs = textgym.TextGenVectorEnv(2, Rising(), output=output.split()[0] if output == "numpy" else "torch")
    if output == "store on a device":
        envs._store = TorchStore(envs.rules, 2, "cpu")
        envs.mask_numbers = envs._store.mask_numbers
        envs._texts = Texts(envs.rules, envs._store, 2, 1)
    before, _ = envs.reset(seed=0, options={"prompt": "c"})
    with pytest.raises(ValueError, match=r"action 2 'a' of slot 1 .* Rising; allowed are 1 '</s>', 4 'c'; .*action_masks\(\)"):
        envs.step(np.array([C, A]))
    after = envs.step(np.array([C, C]))[0]
    assert (np.asarray(after) >= 0).sum(1).tolist() == [2, 2] and (np.asarray(before) >= 0).sum(1).tolist() == [1, 1]
    env = textgym.TextGenEnv(Rising())
    env.reset(seed=0, options={"prompt": "c"})
    with pytest.raises(ValueError, match=r"action 2 'a' of episode 0 .* allowed are 1 '</s>', 4 'c'"):
        env.step(A)
    assert env.step(C)[1] == 0.0


def test_a_mask_that_allows_nothing_is_an_error_that_names_episode_and_task():
    class DeadEnd(Rising):
        def mask_numbers(self, prompts, responses):
            dead = self.token_masks.add(mask())
            return [dead if len(ids) else 0 for ids in responses]

    env = textgym.TextGenEnv(DeadEnd())
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"DeadEnd allows no token after 'b' in episode 0: mask 4 .*end the text there"):
        env.step(B)
    envs = textgym.TextGenVectorEnv(2, DeadEnd())
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="after 'a' in episode 0"):
        envs.step(np.array([A, B]))
    with pytest.raises(gym.error.ResetNeeded):
        envs.step(np.array([A, B]))
    envs.reset(seed=0)
    envs.step(np.array([EOS, EOS]))  # who ends there needs no next token
    with pytest.raises(ValueError, match=r"allows no token .* in episode 0"):
        textgym.TextGenEnv(constant(token_masks=mask())).reset()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([7], "gave 7 in episode 0; allowed are 0..3"),
        ([-1], "gave -1 in episode 0"),
        ([0, 0], r"shape \(2,\) .* for 1 texts"),
        ([1.0], "dtype float64"),
    ],
)
def test_numbers_that_are_none_are_refused(answer, message):
    task = Rising()
    task.mask_numbers = lambda prompts, responses: answer
    with pytest.raises(ValueError, match=message):
        textgym.TextGenEnv(task).reset(seed=0)


def test_masks_and_numbers_have_to_go_together():
    for task in (constant(token_masks=MaskTable(5)), constant(token_masks=mask(A), mask_fn=lambda prompts, responses: [0])):
        with pytest.raises(ValueError, match=r"token_masks is a .* give a MaskTable and define mask_numbers"):
            textgym.TextGenEnv(task)
    with pytest.raises(ValueError, match="mask_fn is given but token_masks is not"):
        textgym.TextGenEnv(constant(mask_fn=lambda prompts, responses: [0]))
    with pytest.raises(ValueError, match="made for 4 tokens but the tokenizer has 5"):
        textgym.TextGenEnv(constant(token_masks=MaskTable(4), mask_fn=lambda prompts, responses: [0]))


def test_one_mask_for_all_texts_is_never_asked_for():
    masks = ActionMasks.of(constant(token_masks=mask(A, EOS)), LETTERS, Task.mask_numbers)
    assert not masks.need_texts
    assert masks.numbers([None, None], [], np.array([0, 1])).tolist() == [1, 1]
    assert masks.table.rows[1].tolist() == mask(A, EOS).tolist()


def test_a_reply_is_not_held_against_the_mask_and_the_next_turn_has_one():
    def after(prompts, responses):
        return [number if len(ids) else 0 for ids in responses]

    table = MaskTable(5)
    number = table.add(mask(C, EOS))
    task = constant(token_masks=table, mask_fn=after, reply_fn=lambda episode: "ab" if len(episode.ids) < 3 else None)
    task.max_response_tokens = 8
    env = textgym.TextGenEnv(task)
    env.reset(seed=0)
    env.step(EOS)
    assert env.action_masks().tolist() == mask(C, EOS).tolist()


def test_the_duel_can_enforce_its_grammar_whatever_the_tokenizer(byte_bpe):
    words = TextTokenizer(byte_bpe, eos_token_id=byte_bpe.token_to_id("<|endoftext|>"))
    for options in ({}, {"tokenizer": words, "numerals": "digits"}):
        envs = textgym.TextGenVectorEnv(8, "number_duel", enforce_grammar=True, **options)
        rng = np.random.default_rng(0)
        envs.reset(seed=0)
        releases = []
        while len(releases) < 16:
            actions = [rng.choice(np.flatnonzero(row)) for row in envs.action_masks()]
            releases += textgym.releases(envs.step(np.array(actions))[4])
        assert all(release.is_success for release in releases)


def test_the_checks_play_only_what_is_allowed_and_find_demonstrations_that_are_not():
    assert not check_task("number_duel", enforce_grammar=True).faults
    assert not check_task(Rising()).faults
    with pytest.raises(CheckError, match="demonstration"):
        check_task(constant(token_masks=mask(A, EOS), demonstrations=[("", "ab")]))


def test_masks_on_a_device_follow_a_table_that_grows():
    table = MaskTable(5)
    masks = DeviceMasks(table, torch.device("cpu"))
    assert masks.rows().shape == (1, 5)
    table.add(mask(A))
    table.add(mask(B))
    assert np.array_equal(masks.rows().numpy(), table.rows)

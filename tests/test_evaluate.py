import numpy as np
import pytest
import torch
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic, CausalLMPolicy, Step
from textgym_agents.evaluate import judge, play

import textgym
from textgym import Prompt, PromptTask


@pytest.mark.parametrize("reward", [1.0, [0.5, 0.5]])
def test_returns_are_sums_whatever_the_rewards_type_F19(letters, reward):
    task = PromptTask(["a"], letters, lambda e: [reward] * len(e), max_new_tokens=2, success_fn=lambda e: True, stop=["\n"])
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 4)

    class Long:
        """Never ends early, so that every text has two tokens."""

        def act(self, obs, slots):
            step = policy.act(obs, slots)
            step.tokens.fill_(3)
            return step

        def reset_slots(self, slots):
            policy.reset_slots(slots)

    played = play(task, Long(), episodes=6, num_slots=4, seed=0, device="cpu")
    figures = judge(task, played)
    assert len(played) == 6
    assert (figures["return"], figures["tokens"], figures["success"], figures["score"]) == (1.0, 2.0, 1.0, 1.0)


def test_fewer_episodes_than_slots_are_played_in_fewer_slots(letters):
    task = PromptTask(["a"], letters, lambda e: [0.0] * len(e), max_new_tokens=2)
    policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 8)
    assert len(play(task, policy, episodes=3, num_slots=8, seed=0, device="cpu")) == 3


def test_the_reward_function_sees_the_same_text_in_training_and_evaluation_F26(byte_bpe):
    """Ids that do not survive encoding again, special tokens among them, through every way to play."""
    tokenizer = textgym.TextTokenizer(byte_bpe, eos_token_id=0)
    written = [tokenizer.backend.token_to_id(piece) for piece in ("h", "e", "l", "l", "o", "<|pad|>", "Ġ", "Ã", "©")] + [0]
    seen = []

    def judge_texts(episodes):
        seen.extend((episode.text, episode.ids.tolist(), episode.offsets.tolist(), episode.ended_by) for episode in episodes)
        return [0.0] * len(episodes)

    class Writer:
        def act(self, obs, slots):
            lengths = (torch.as_tensor(obs) >= 0).sum(1) - 1
            count = len(lengths)
            return Step(torch.tensor(written)[lengths], torch.zeros(count), torch.zeros(count))

        def reset_slots(self, slots):
            pass

    task = PromptTask([Prompt("h", [written[0]])], tokenizer, judge_texts, max_new_tokens=12)
    play(task, Writer(), episodes=2, num_slots=2, seed=0, device="cpu")
    envs = textgym.TextGenVectorEnv(2, task)
    envs.reset(seed=0)
    env = textgym.TextGenEnv(task)
    env.reset(seed=0)
    for token in written:
        envs.step(np.full(2, token))
        env.step(token)
    assert len(seen) == 5
    assert all(text == seen[0] for text in seen)
    assert seen[0][0] == "hello é"
    assert tokenizer.encode(seen[0][0]).tolist() != written

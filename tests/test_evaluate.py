import pytest
from agent_kit import CONTEXT, build_lm
from textgym_agents import ActorCritic, CausalLMPolicy
from textgym_agents.evaluate import judge, play

from textgym import PromptTask


@pytest.mark.parametrize("reward", [1.0, [0.5, 0.5]])
def test_returns_are_sums_whatever_the_rewards_type(letters, reward):
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

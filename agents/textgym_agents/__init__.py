"""Agents for textgym: a KV-cached language-model policy, PPO over token rewards, and the protocols for agents of your own."""

from textgym_agents.agent import Agent, resolve_agent
from textgym_agents.collector import Collector, collect
from textgym_agents.model import ActorCritic, load_lm, tiny_gpt2
from textgym_agents.policy import CausalLMPolicy, Step
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.returns import stream_gae, whole_stream_returns
from textgym_agents.rollout import Policy, Rollout
from textgym_agents.warmup import warm_up

__all__ = [
    "PPO",
    "ActorCritic",
    "Agent",
    "CausalLMPolicy",
    "Collector",
    "PPOConfig",
    "Policy",
    "Rollout",
    "Step",
    "collect",
    "load_lm",
    "resolve_agent",
    "stream_gae",
    "tiny_gpt2",
    "warm_up",
    "whole_stream_returns",
]

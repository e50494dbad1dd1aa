"""Agents for textgym: a KV-cached language-model policy, PPO over token rewards, and the protocols for agents of your own."""

from textgym_agents.agent import Agent, resolve_agent
from textgym_agents.best_of_n import BestOfN, BestOfNConfig
from textgym_agents.checkpoint import load_learning, save_learning
from textgym_agents.cloning import Cloning, CloningConfig
from textgym_agents.collector import Collector, collect
from textgym_agents.guard import AgentError
from textgym_agents.ilql import ILQL, ILQLConfig
from textgym_agents.model import ActorCritic, load_lm, tiny_gpt2
from textgym_agents.policy import CausalLMPolicy, Step
from textgym_agents.ppo import PPO, PPOConfig
from textgym_agents.random_agent import RandomAgent
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.returns import stream_gae, whole_stream_returns
from textgym_agents.rloo import GRPO, RLOO, GRPOConfig, RLOOConfig
from textgym_agents.rollout import Policy, Rollout
from textgym_agents.warmup import warm_up

__all__ = [
    "GRPO",
    "ILQL",
    "PPO",
    "RLOO",
    "ActorCritic",
    "Agent",
    "AgentError",
    "BestOfN",
    "BestOfNConfig",
    "CausalLMPolicy",
    "Cloning",
    "CloningConfig",
    "Collector",
    "GRPOConfig",
    "ILQLConfig",
    "PPOConfig",
    "Policy",
    "RLOOConfig",
    "RandomAgent",
    "Reinforce",
    "ReinforceConfig",
    "Rollout",
    "Step",
    "collect",
    "load_learning",
    "load_lm",
    "resolve_agent",
    "save_learning",
    "stream_gae",
    "tiny_gpt2",
    "warm_up",
    "whole_stream_returns",
]

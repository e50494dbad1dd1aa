"""Run by test_ppo in one process and in two: an optimizer step on the same eight episodes. Writes gradients to argv[1]."""

import os
import sys

import torch
from accelerate import Accelerator
from agent_kit import CONTEXT, build_lm
from gymnasium.vector import AutoresetMode
from safetensors.torch import save_file
from textgym_agents import PPO, ActorCritic, CausalLMPolicy, PPOConfig, collect
from textgym_agents.minibatch import Targets

from textgym import PromptTask, TextGenVectorEnv, TextTokenizer, symbol_tokenizer

letters = TextTokenizer(symbol_tokenizer(list("abcdefgh .\n")))
task = PromptTask(["a", "bcd"], letters, lambda episodes: [0.0] * len(episodes), max_new_tokens=8)
envs = TextGenVectorEnv(4, task, autoreset_mode=AutoresetMode.DISABLED, output="torch")
envs.reset(seed=0)
accelerator = Accelerator(cpu=True)
count, rank = accelerator.num_processes, accelerator.process_index
policy = CausalLMPolicy(ActorCritic(build_lm("gpt2", len(letters)), letters, CONTEXT), 4)
# The first process takes a pass per row, the other one pass: the numbers of passes differ.
config = PPOConfig(episodes_per_update=8, learning_rate=1e-2, microbatch_tokens=1 if rank == 0 else 2048, max_grad_norm=100.0)
agent = PPO(policy, config, accelerator=accelerator)
rollout = collect(envs, policy, 8)
advantages = torch.linspace(-1, 1, rollout.logprobs.numel()).reshape(rollout.logprobs.shape)
# Two uneven shares, so that means over each process' own tokens would weigh them wrongly.
rows = torch.arange(8) if count == 1 else (torch.arange(2), torch.arange(2, 8))[rank]
agent._step(rollout, rows, Targets(advantages, advantages, None))
if accelerator.is_main_process:
    gradients = {name: p.grad for name, p in policy.model.named_parameters() if p.grad is not None}
    save_file({name: gradients[name] for name in ("lm.transformer.wpe.weight", "value_head.weight")}, sys.argv[1])
accelerator.wait_for_everyone()
os._exit(0)  # gloo's threads sometimes abort while the interpreter is taken down, long after what is tested here

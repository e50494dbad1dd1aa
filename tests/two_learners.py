"""Run by test_learner in two processes: small agents learn from texts of their own. Writes the weights to argv[1]<rank>."""

import os
import sys
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from agent_kit import play_kit, weights
from safetensors.torch import save_file
from textgym_agents.best_of_n import BestOfN
from textgym_agents.cloning import Cloning, CloningConfig
from textgym_agents.ilql import ILQL
from textgym_agents.reinforce import Reinforce, ReinforceConfig
from textgym_agents.rloo import GRPO, GRPOConfig

from textgym import TextTokenizer, symbol_tokenizer

rank = PartialState(cpu=True).process_index
letters = TextTokenizer(symbol_tokenizer(list("abcdefgh .\n")))
learned: dict[str, torch.Tensor] = {}
for kind, config, group_size in (
    (Reinforce, ReinforceConfig(episodes_per_update=8), 1),
    (GRPO, GRPOConfig(episodes_per_update=8, minibatch_episodes=4), 2),
    (Cloning, CloningConfig(episodes_per_update=8, minibatch_episodes=4), 1),
):
    demonstrations = [("a", "bcd"), ("a", "ef"), ("a", "g")]
    policy, envs = play_kit(letters, group_size=group_size, demonstrations=demonstrations)
    envs.reset(seed=8 * rank)
    policy.generator.manual_seed(rank)
    seen: list[float] = []
    kind(policy, config).learn(envs, 16, lambda figures, seen=seen: seen.append(figures["loss"]))
    learned |= {kind.__name__: weights(policy), f"{kind.__name__} loss": torch.tensor(seen)}
for kind in (BestOfN, ILQL):
    with pytest.raises(ValueError, match=f"{kind.__name__} learns in one process and there are 2"):
        kind(play_kit(letters)[0])
save_file(learned, str(Path(sys.argv[1]) / str(rank)))
PartialState().wait_for_everyone()
os._exit(0)  # as in two_processes

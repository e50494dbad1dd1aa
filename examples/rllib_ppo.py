"""PPO of RLlib with token rewards: a callback puts whole texts, tokens with their rewards, in place of what is sampled.

Needs ray, which pins Gymnasium: pip install -e '.[rllib]' in an environment of its own.
"""

import sys

import ray
import torch
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from textgym_agents.integrations.rllib_module import TokenModule

from textgym.integrations.rllib import TokenRewards


@torch.random.fork_rng()
def learn(rewards: str, tokens: int, seed: int) -> list[tuple[int, float]]:
    gamma = 0.0 if rewards == "tokens" else 1.0  # a right symbol is its own token's doing: nothing need flow back
    if not ray.is_initialized():
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    config = PPOConfig().environment("textgym:textgym/Copying-v0", env_config={"length": 8, "alphabet": 4})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=8)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=TokenModule)).learners(num_learners=0).debugging(seed=seed)
    config.training(gamma=gamma, lambda_=0.95, lr=2.5e-3, grad_clip=0.5, grad_clip_by="global_norm", clip_param=0.2)
    config.training(use_kl_loss=False, entropy_coeff=0.01, vf_loss_coeff=0.25, num_epochs=4, minibatch_size=256)
    config.training(train_batch_size_per_learner=1024).reporting(metrics_num_episodes_for_smoothing=1024)
    if rewards == "tokens":
        config.callbacks(TokenRewards)
    algorithm, curve, played = config.build_algo(), [], 0
    while played < tokens:
        found = algorithm.train()["env_runners"]
        played = int(found["num_env_steps_sampled_lifetime"])
        curve.append((played, float(found["episode_return_mean"])))
    algorithm.stop()
    return curve


if __name__ == "__main__":
    for form in ("sum", "tokens"):
        print(form, learn(form, tokens=4096 if "--quick" in sys.argv else 61_440, seed=0)[-1])
    ray.shutdown()

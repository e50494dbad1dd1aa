"""Play a task and write its episodes, with their token rewards, to a file; read them back; batch them for TRL.

python examples/export_episodes.py --out episodes.jsonl         # or .parquet, with pip install 'textgym[data]'
python examples/export_episodes.py --quick
"""

import argparse
import tempfile
from pathlib import Path

from textgym_agents import ActorCritic, CausalLMPolicy, tiny_gpt2
from textgym_agents.evaluate import play

import textgym
from textgym.export import load_episodes, save_episodes, to_trl


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", default="number_duel")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--out", default=None, help="name of the file; default: a temporary one")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    task = textgym.resolve_task(options.task)
    tokenizer = textgym.TextTokenizer(task.tokenizer)
    length = task.max_prompt_tokens + (task.max_response_tokens or task.max_new_tokens)
    episodes = 16 if options.quick else options.episodes
    policy = CausalLMPolicy(ActorCritic(tiny_gpt2(len(tokenizer), length), tokenizer, length), min(64, episodes))
    played = play(task, policy, episodes=episodes, num_slots=64, seed=0, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.out or f"{folder}/episodes.jsonl")
        save_episodes(path, played)
        print(f"{len(played)} episodes, {path.stat().st_size} bytes in {path}")
        read = load_episodes(path)
    paid = [sum(float(release.token_rewards.sum()) for _, release in pairs) for pairs in (played, read)]
    print(f"paid {paid[0]:.4f} when played, {paid[1]:.4f} when read")
    for name, array in to_trl(read, pad_token_id=tokenizer.eos_token_id).items():
        print(f"{name:>20} {array.dtype} {array.shape}")


if __name__ == "__main__":
    main()

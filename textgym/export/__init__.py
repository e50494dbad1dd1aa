"""Episodes and their token rewards, out of textgym: to other trainers' batches, and to files and back."""

from textgym.export.files import load_episodes, save_episodes
from textgym.export.trainers import rewards_to_go, to_skyrl, to_trl, to_verifiers, to_verl

__all__ = ["load_episodes", "rewards_to_go", "save_episodes", "to_skyrl", "to_trl", "to_verifiers", "to_verl"]

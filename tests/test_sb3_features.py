import torch
from textgym_agents.integrations.sb3_features import RecentTokens

from textgym import TextGenEnv


def test_the_latest_token_comes_first_and_no_token_is_zeros():
    space = TextGenEnv("textgym/NumberDuel-v0").observation_space
    features = RecentTokens(space)
    obs = torch.full((2, space.shape[0]), -1.0)  # SB3 makes floats of them
    obs[1, :3] = torch.tensor([0.0, 3.0, 2.0])
    found = features(obs).reshape(2, space.shape[0], -1)
    assert features(obs).shape == (2, features.features_dim)
    assert found.shape[2] == space.high[0] + 1 and found[0].sum() == 0
    assert found[1].nonzero().tolist() == [[0, 2], [1, 3], [2, 0]]

import pytest
import torch
from agent_kit import build_rollout, play_kit
from textgym_agents import collect
from textgym_agents.replay import Replay


def test_episodes_come_back_as_they_were_released(letters):
    policy, envs = play_kit(letters, lambda episodes: [[float(i) for i in range(len(e.ids))] for e in episodes])
    rollout = collect(envs, policy, 8)
    replay = Replay(8, seed=0)
    replay.add(rollout)
    batch = replay.sample(64)
    assert set(batch.episode_id.tolist()) == set(rollout.episode_id.tolist())
    for i, number in enumerate(batch.episode_id.tolist()):
        row = int((rollout.episode_id == number).nonzero())
        count, prompt = int(rollout.num_tokens[row]), int(rollout.prompt_lengths[row])
        assert batch.ids[i, : prompt + count].tolist() == rollout.ids[row, : prompt + count].tolist()
        # a step paid 0; what the release gave each token is what is learned from
        assert batch.token_rewards[i, :count].tolist() == list(range(count))
        assert batch.streams[i, count:].tolist() == [-1] * (batch.streams.shape[1] - count)
        assert batch.agent_mask[i].sum() == count


def test_the_oldest_make_room_and_an_empty_one_is_refused():
    replay = Replay(2)
    with pytest.raises(ValueError, match="the replay buffer is empty"):
        replay.sample(1)
    for first in (0, 2):
        replay.add(build_rollout(episode_id=torch.tensor([first, first + 1])))
    assert len(replay) == 2
    assert set(replay.sample(32).episode_id.tolist()) == {2, 3}

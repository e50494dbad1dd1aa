"""RLlib: what its learner is given is what was released, token by token; its own GAE stays inside streams."""

import os
import sys

import numpy as np
import pytest

pytest.importorskip("ray")
import ray
import torch
import tree
from integration_kit import arguments, example, pay
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from textgym_agents.integrations.rllib_module import TokenModule

from textgym.integrations.rllib import TokenRewards
from textgym.integrations.steps import stream_advantages


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # a runner's process imports this task too
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    ray.shutdown()


class Witness(PPOTorchLearner):
    """Keeps the batches that its loss is computed of, with the values that the critic had then."""

    seen: list = []  # noqa: RUF012

    def compute_loss_for_module(self, *, module_id, config, batch, fwd_out):
        with torch.no_grad():
            values = self.module[module_id].unwrapped().compute_values(batch)
        Witness.seen.append({**tree.map_structure(torch.Tensor.numpy, dict(batch)), "values": values.numpy()})
        return super().compute_loss_for_module(module_id=module_id, config=config, batch=batch, fwd_out=fwd_out)


SYNC, NATIVE = {}, {"gym_env_vectorize_mode": "vector_entry_point"}
CUT, WHOLE = {"batch_mode": "truncate_episodes", "rollout_fragment_length": 4}, {"batch_mode": "complete_episodes"}


def build(runners, **more):
    """PPO over texts of 1 to 6 tokens in two streams, or of another task; an iteration learns from each row once."""
    config = PPOConfig().environment("textgym:TextGen-v0", env_config=more if "task" in more else arguments(**more))
    config.env_runners(**{"num_env_runners": 0, "num_envs_per_env_runner": 3, **runners})
    config.training(gamma=0.9, lambda_=0.8, num_epochs=1, train_batch_size_per_learner=60, minibatch_size=None)
    config.training(shuffle_batch_per_epoch=False).learners(num_learners=0, learner_class=Witness)
    config.rl_module(rl_module_spec=RLModuleSpec(module_class=TokenModule)).debugging(seed=0)
    return config.callbacks(TokenRewards).build_algo()


def learn(runners, iterations=4, **more):
    """Give what the learner saw, columns of each stream, then RLlib's metrics of the runners, and how many steps wait."""
    Witness.seen = []
    algorithm = build(runners, **more)
    for _ in range(iterations):
        results = algorithm.train()["env_runners"]
    waiting = algorithm.env_runner._callbacks[0].waiting
    algorithm.stop()
    streams = []
    for batch in Witness.seen:
        ends = np.flatnonzero(~batch["loss_mask"]) + 1  # the row that RLlib adds to each episode
        assert ends[-1] == len(batch["rewards"])
        for start, end in zip([0, *ends[:-1]], ends, strict=True):
            streams.append(tree.map_structure(lambda column, rows=slice(start, end): column[rows], batch))
    return streams, results, waiting


def places(stream):
    """Which token of its text each row is, from 0; the prompt has one token."""
    return (stream["obs"] >= 0).sum(1)[:-1] - 1


def learned(streams):
    """Give all rewards that were learned from, having looked that each stands where its token stands."""
    for stream in streams:
        np.testing.assert_allclose(stream["rewards"][:-1], 1 + places(stream) + stream["actions"][:-1] / 100, rtol=1e-6)
    return np.concatenate([stream["rewards"][:-1] for stream in streams])


def noted():
    """Give a list, and a reward function that writes into it what it has paid for each token."""
    paid = []

    def note(episodes):
        paid.extend(np.concatenate(pay(episodes)))
        return pay(episodes)

    return paid, note


@pytest.mark.parametrize("length_limit", ["terminate", "truncate"])
@pytest.mark.parametrize("vector", [SYNC, NATIVE], ids=["sync", "native"])
def test_every_released_token_is_learned_from_once_with_its_reward(vector, length_limit):
    paid, note = noted()
    mode = {"autoreset_mode": "NextStep"} if vector else {}
    streams, results, waiting = learn({**CUT, **vector}, reward_fn=note, length_limit=length_limit, **mode)
    rewards = learned(streams)
    np.testing.assert_allclose(np.sort(rewards), np.sort(paid), rtol=1e-6)
    assert rewards.sum(dtype=np.float64) == pytest.approx(sum(paid), abs=1e-4)
    assert results["token_rewards_placed"] == pytest.approx(sum(paid), abs=1e-4)
    assert len(rewards) + waiting == results["num_env_steps_sampled_lifetime"] and waiting


def test_complete_episodes_are_taken_as_well():
    streams, results, waiting = learn(WHOLE)
    rewards = learned(streams)
    assert rewards.sum(dtype=np.float64) == pytest.approx(results["token_rewards_placed"], abs=1e-4)
    assert waiting == 0 and len(rewards) < results["num_env_steps_sampled_lifetime"]  # RLlib throws away texts that go on


def test_rllibs_own_metrics_stay_those_of_texts_and_their_sums():
    paid, note = noted()
    streams, results, waiting = learn(SYNC, iterations=1, reward_fn=note)  # of several samples RLlib averages the averages
    assert results["episode_return_mean"] * results["num_episodes"] == pytest.approx(sum(paid), abs=1e-4)
    assert results["episode_len_mean"] * results["num_episodes"] == pytest.approx(len(paid))
    assert len(streams) > results["num_episodes"] and waiting


def test_a_runner_of_its_own_process_hands_over_the_same():
    streams, results, _ = learn({**CUT, "num_env_runners": 1}, iterations=2)
    assert learned(streams).sum(dtype=np.float64) == pytest.approx(results["token_rewards_placed"], abs=1e-4)


@pytest.mark.parametrize("length_limit", ["terminate", "truncate"])
def test_the_librarys_own_advantages_stay_inside_streams(length_limit):
    streams, _, _ = learn(CUT, length_limit=length_limit)
    cut = 0
    for stream in streams:
        assert len(set(stream["actions"][:-1] % 2)) == 1 and (np.diff(places(stream)) > 0).all()
        truncated = stream["truncateds"][-2]
        rows = (stream["rewards"][:-1], stream["values"][:-1], np.zeros(len(stream["rewards"]) - 1, dtype=np.int64))
        expected = stream_advantages(*rows, truncated * stream["values"][-1], gamma=0.9, gae_lambda=0.8)
        np.testing.assert_allclose(stream["value_targets"][:-1], expected + rows[1], rtol=1e-4, atol=1e-4)
        if truncated:
            assert places(stream)[-1] == 5 and (stream["obs"][-1] >= 0).sum() == 7  # it is the final observation that is valued
            cut += 1
    assert (cut > 10) == (length_limit == "truncate")


def test_one_stream_is_one_episode():
    streams, results, _ = learn(CUT, streams_fn=None)
    assert len(streams) == results["num_episodes_lifetime"]
    for stream in streams:
        np.testing.assert_array_equal(places(stream), np.arange(len(places(stream))))


def test_texts_are_sampled_and_learned_from_under_action_masks():
    task = {"task": "number_duel", "enforce_grammar": True, "observation": "dict"}  # raises at a forbidden token
    streams, results, _ = learn(CUT, **task)
    assert len(streams) == 2 * results["num_episodes_lifetime"]
    for stream in streams:
        assert (stream["obs"]["action_mask"][np.arange(len(stream["actions"]) - 1), stream["actions"][:-1]] == 1).all()


@pytest.mark.parametrize(
    ("runners", "more", "said"),
    [
        (NATIVE, {}, "autoreset_mode is AutoresetMode.SAME_STEP, but RLlib takes the step after an end for the reset"),
        (NATIVE, {"autoreset_mode": "NextStep", "reward_workers": 1}, "leave reward_workers out of env_config"),
        (SYNC, {"max_episode_steps": 2}, "a TimeLimit of 2 steps is around an environment"),
    ],
)
def test_environments_that_would_be_read_wrongly_are_refused(runners, more, said):
    with pytest.raises(ValueError, match=said):
        build(runners, **more)


def test_the_example_learns_copying():
    curve = example("rllib_ppo").learn("tokens", 12_000, 0)
    assert curve[0][1] < 0.15 and curve[-1][1] > 0.22

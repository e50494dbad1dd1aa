import re
import runpy
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

import textgym
from textgym import Task, symbol_tokenizer
from textgym.integrations.sb3 import TextGenVecEnv, TokenRewardBuffer, TokenRewards

ROOT = Path(__file__).resolve().parent.parent
TOKENIZER = symbol_tokenizer([*"abcdefghijklmnopqrstuvwxyz"])


class LongTexts(Task):
    """Each token is paid its own number less 14, in the stream of its parity; cut after 60 tokens, or ended by eos."""

    max_prompt_tokens = 1
    max_new_tokens = 60
    length_limit = "truncate"
    tokenizer = TOKENIZER

    def sample(self, rng):
        return textgym.Prompt("abcd"[rng.integers(4)])

    def rewards(self, episodes):
        return [e.ids - 14.0 for e in episodes]

    def streams(self, episodes):
        return [np.arange(len(e.ids)) % 2 for e in episodes]


class Released(BaseCallback):
    """Adds up independently what the environment paid, with VecMonitor's eyes, and what SB3 is about to learn from."""

    def __init__(self):
        super().__init__()
        self.released, self.learned, self.lengths, self.batches, self.weights = 0.0, 0.0, [], [], []

    def _on_step(self):
        for info in self.locals["infos"]:
            if "token_rewards" in info:
                self.released += float(info["token_rewards"].sum(dtype=np.float64))
                self.lengths.append(info["num_tokens"])
        return True

    def _on_rollout_start(self):
        self.weights.append(torch.nn.utils.parameters_to_vector(self.model.policy.parameters()).detach().clone())

    def _on_rollout_end(self):
        buffer = self.model.rollout_buffer
        self.batches.append(buffer.is_neutral)
        self.learned += 0.0 if buffer.is_neutral else buffer.rewards.sum(dtype=np.float64)


def native(slots=3, task=LongTexts):
    return VecMonitor(TextGenVecEnv(gym.make_vec("textgym:TextGen-v0", num_envs=slots, task=task())))


def singles(slots=3):
    return DummyVecEnv([lambda: Monitor(textgym.TextGenEnv(LongTexts()))] * slots)


def make(kind, env, n_steps=4, **kwargs):
    options = {"batch_size": 12, "n_epochs": 2} if kind is PPO else {}
    options |= {"n_steps": n_steps, "rollout_buffer_class": TokenRewardBuffer, "seed": 0, "device": "cpu"}
    return kind("MlpPolicy", env, **options | kwargs)


@pytest.mark.parametrize("make_env", [native, singles])
@pytest.mark.parametrize("kind", [PPO, A2C])
def test_all_that_is_released_over_training_is_learned_from(kind, make_env):
    """Rollouts of 4 steps, texts of up to 60."""
    model, seen = make(kind, make_env()), Released()
    model.learn(2400, callback=[seen, TokenRewards()])
    buffer = model.rollout_buffer
    assert max(seen.lengths) == 60 and len(seen.lengths) > 20
    waiting = sum(text.released for text in buffer._finished)
    assert buffer.ledger.asked == pytest.approx(seen.released - waiting, abs=1e-4)
    assert buffer.ledger.accounts["bootstrap"] != 0 and buffer.ledger.accounts["abandoned"] == 0
    assert seen.learned == buffer.paid == pytest.approx(seen.released - waiting - buffer.ledger.accounts["bootstrap"], abs=1e-4)
    assert buffer.tokens_learned + buffer.tokens_held == model.num_timesteps == 2400
    assert buffer.tokens_learned == sum(seen.lengths) - sum(len(text.rewards) for text in buffer._finished)


@pytest.mark.parametrize("kind", [PPO, A2C])
def test_a_rollout_without_a_release_moves_no_weight(kind):
    """Momentum would, where gradients are merely 0."""
    model, seen = (
        make(kind, native(1), ent_coef=0.1, **({"normalize_advantage": True} if kind is A2C else {"batch_size": 4})),
        Released(),
    )
    model.learn(800, callback=[seen, TokenRewards()])
    moved = [not torch.equal(one, other) for one, other in zip(seen.weights[:-1], seen.weights[1:], strict=True)]
    assert moved == [not neutral for neutral in seen.batches[: len(moved)]]
    assert 0 < sum(moved) < len(moved) and torch.isfinite(seen.weights[-1]).all()


def test_the_bootstrap_is_that_of_sb3():
    """gamma V(last observation), for each text that was cut."""

    class Values(BaseCallback):
        expected = 0.0

        def _on_step(self):
            for info in self.locals["infos"]:
                if info.get("TimeLimit.truncated"):
                    obs = torch.from_numpy(info["terminal_observation"])[None]
                    self.expected += 0.9 * self.model.policy.predict_values(obs).item()
            return True

    model, values = make(PPO, native(), n_steps=64, gamma=0.9), Values()
    model.learn(64 * 9, callback=[values, TokenRewards()])
    assert values.expected != 0
    assert -model.rollout_buffer.ledger.accounts["bootstrap"] == pytest.approx(values.expected, abs=1e-4)


def test_learning_on_goes_on_with_the_texts_that_it_held():
    model = make(PPO, native())
    model.learn(120, callback=TokenRewards())
    held = model.rollout_buffer.tokens_held
    assert held > 0
    model.learn(120, callback=TokenRewards(), reset_num_timesteps=False)
    buffer = model.rollout_buffer
    assert (buffer.tokens_abandoned, buffer.tokens_learned + buffer.tokens_held) == (0, 240)
    held = buffer.tokens_held - sum(len(text.rewards) for text in buffer._finished)
    model.learn(120, callback=TokenRewards())  # SB3 resets the environment
    assert buffer.tokens_abandoned == held
    assert buffer.tokens_abandoned + buffer.tokens_learned + buffer.tokens_held == 360
    assert not model.policy.optimizer._optimizer_step_pre_hooks


class Played(BaseCallback):
    """Counts steps with SB3's eyes, over all calls of ``learn``."""

    tokens = 0

    def _on_step(self):
        self.tokens += len(self.locals["dones"])
        return True


def test_no_step_is_missing_from_the_accounts_whoever_calls_learn_and_stops_it():
    """SB3 counts its steps anew with each call; the buffer and its texts live on."""
    model, rewards, played = make(PPO, native()), TokenRewards(), Played()
    buffer, seen = model.rollout_buffer, []
    for stops, reset in (
        (False, True),
        (False, True),
        (False, False),
        (True, False),
        (False, True),
        (True, True),
        (False, True),
    ):
        stop = [StopTrainingOnMaxEpisodes(2)] if stops else []
        model.learn(10_000 if stops else 120, callback=[rewards, played, *stop], reset_num_timesteps=reset)
        assert buffer.tokens_played == played.tokens
        assert buffer.tokens_learned + buffer.tokens_held + buffer.tokens_abandoned == played.tokens
        buffer.check_ledger()
        seen.append((model.num_timesteps, buffer.tokens_learned, buffer.tokens_abandoned))
    assert seen[1][0] == seen[0][0] == 120 and seen[1][2] > 0
    assert seen[2][2] == seen[1][2] and seen[2][1] > seen[1][1]
    buffer.tokens_learned += 1
    with pytest.raises(ValueError, match="a subclass of the buffer lost some"):
        buffer.check_ledger()


def test_training_that_stops_in_a_step_says_what_was_lost():
    model = make(PPO, native())
    model.learn(10_000, callback=[TokenRewards(), StopTrainingOnMaxEpisodes(1)])
    model.rollout_buffer.reset()
    assert model.rollout_buffer.ledger.accounts["abandoned"] != 0
    assert model.rollout_buffer.tokens_abandoned == 3
    model.rollout_buffer.check_ledger()


def test_totals_are_logged():
    class Look(BaseCallback):
        def _on_step(self):
            return True

        def _on_rollout_end(self):
            self.logged = {name: value for name, value in self.logger.name_to_value.items() if name.startswith("textgym/")}

    model, look = make(PPO, native()), Look()
    model.learn(240, callback=[TokenRewards(), look])
    buffer = model.rollout_buffer
    assert look.logged == {
        "textgym/tokens_played": 240,
        "textgym/tokens_held": 240 - buffer.tokens_learned,
        "textgym/tokens_learned": buffer.tokens_learned,
        "textgym/tokens_abandoned": 0,
        "textgym/rewards": buffer.ledger.asked,
        "textgym/bootstrap": -buffer.ledger.accounts["bootstrap"],
    }
    assert buffer.ledger.asked != 0


class Duel(Task):
    """Two digits: the larger one's speaker gets 1, the other -1. The second speaker counts in letters."""

    max_prompt_tokens = 1
    max_new_tokens = 2
    tokenizer = symbol_tokenizer([*"0123abcd"])

    def sample(self, rng):
        return textgym.Prompt("0")

    def ended(self, prompt, ids):
        return len(ids) == 2

    def rewards(self, episodes):
        return [self.pay(e) for e in episodes]

    def pay(self, episode):
        said = [place.find(letter) for place, letter in zip(("0123", "abcd"), episode.text, strict=False)]
        if len(said) < 2 or min(said) < 0:  # the form is broken: each speaker pays for what he broke
            wrong = next((i for i, number in enumerate(said) if number < 0), len(said))
            return [-2.0 * (i == min(wrong, len(episode.ids) - 1)) for i in range(len(episode.ids))]
        return [float(np.sign(said[0] - said[1])), float(np.sign(said[1] - said[0]))]

    def streams(self, episodes):
        return [np.arange(len(e.ids)) for e in episodes]


def test_streams_teach_the_first_speaker():
    class OneStream(Duel):
        streams = Task.streams

    found = {}
    for task in (Duel, OneStream):
        model = make(
            PPO,
            native(32, task),
            n_steps=8,
            batch_size=64,
            n_epochs=4,
            learning_rate=3e-3,
            gamma=1.0,
            gae_lambda=1.0,
            ent_coef=0.01,
        )
        model.learn(8000, callback=TokenRewards())
        obs = np.full((1, 3), -1)
        obs[0, 0] = Duel.tokenizer.encode("0")[0]
        probs = model.policy.get_distribution(torch.from_numpy(obs)).distribution.probs[0].detach()
        found[task] = float(probs[Duel.tokenizer.encode("3")[0]])
    assert found[Duel] > 0.9 > 0.6 > found[OneStream], found


def test_what_would_change_or_lose_rewards_is_refused():
    cases = [
        (make(PPO, VecNormalize(native(), norm_obs=False)), "norm_reward=False"),
        (make(PPO, native(), rollout_buffer_class=None), "rollout_buffer_class=TokenRewardBuffer"),
        (DQN("MlpPolicy", native(), device="cpu", buffer_size=10), "is a NoneType"),
        (make(PPO, DummyVecEnv([lambda: gym.wrappers.TimeLimit(textgym.TextGenEnv(LongTexts()), 9)] * 3)), "TimeLimit of 9"),
    ]
    for model, message in cases:
        with pytest.raises(ValueError, match=message):
            model.learn(24, callback=TokenRewards())
    with pytest.raises(RuntimeError, match="needs its callback"):
        make(PPO, native()).learn(24)
    model = make(PPO, VecNormalize(native(), norm_obs=False, norm_reward=False))
    model.learn(240, callback=TokenRewards())
    assert model.rollout_buffer.tokens_learned > 0


def test_an_end_without_a_release_is_an_error():
    class Silent(gym.Wrapper):
        def step(self, action):
            obs, reward, terminated, truncated, _ = self.env.step(action)
            return obs, reward, terminated, truncated, {}

    model = make(PPO, DummyVecEnv([lambda: Silent(textgym.TextGenEnv(LongTexts()))] * 3))
    with pytest.raises(ValueError, match="ended without a release"):
        model.learn(600, callback=TokenRewards())


def test_the_snippets_of_the_page_run_in_their_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the page saves a model
    page = (ROOT / "docs" / "SB3.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    assert len(snippets) >= 3
    (tmp_path / "page.py").write_text("\n".join(snippets), encoding="utf-8")
    assert runpy.run_path(str(tmp_path / "page.py"))["tokens"].shape == (8,)


@pytest.mark.parametrize("name", ["sb3_ppo", "sb3_a2c"])
@pytest.mark.parametrize("rewards", ["tokens", "sum"])
def test_the_examples_give_curves(name, rewards):
    points = runpy.run_path(str(ROOT / "examples" / f"{name}.py"))["learn"](rewards, 4096, 0)
    assert [tokens for tokens, _ in points] == [2048, 4096]
    assert all(0 < score < 1 for _, score in points)

"""A causal language model as a policy of Stable-Baselines3: a cache row per slot when it plays, a pass per text when it learns.

Left out on purpose: SB3's feature extractors and networks, which this policy has no use for. SB3 hands over whole observations
without saying whose they are; so a slot is its position in the batch, and it goes on with its text where the observation
begins with what the slot has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from stable_baselines3.common.distributions import CategoricalDistribution, Distribution
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import Tensor

from textgym_agents.model import ActorCritic
from textgym_agents.packing import How, micro_batches, packs_exactly
from textgym_agents.policy import CausalLMPolicy, Step
from textgym_agents.threads import small_backward, small_pass

_MAX_TOKENS = 8192  # of a pass, padding included


class LanguageModelPolicy(ActorCriticPolicy):
    """A causal language model and its value head, for PPO and A2C of SB3.

    Playing runs one new token per slot. A cached row is run anew where the observation does not continue the text that it
    holds, and whenever a weight has changed. Learning runs each distinct text of a minibatch once, whichever of its steps the
    minibatch has and in whatever order; minibatches of whole texts (``TokenRewardBuffer``, ``whole_texts=True``) make the most
    of it.

    Args:
        observation_space: token ids, right-padded with -1, as textgym's environments have it.
        action_space: Discrete(V).
        lr_schedule: SB3's.
        make_model: makes the ``ActorCritic``; a function, so that ``load`` can call it before it reads the saved weights.
        temperature: of sampling; log-probs are those of the distribution that was sampled from.
        use_sde: SB3's, which refuses it for tokens.
        optimizer_class: SB3's; gets the parameters that require gradients.
        optimizer_kwargs: SB3's.

    Raises:
        ValueError: the spaces and the model do not fit, or values come from a second model.
    """

    def __init__(
        self,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        lr_schedule: Callable[[float], float],
        make_model: Callable[[], ActorCritic],
        temperature: float = 1.0,
        use_sde: bool = False,
        optimizer_class: type[torch.optim.Optimizer] = torch.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            use_sde=use_sde,
            normalize_images=False,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.make_model = make_model
        self.temperature = temperature
        self.model = make_model()
        _check_fit(self.model, observation_space, action_space)
        self.how: How = "packed" if packs_exactly(self.model) else "sorted"
        self._players: dict[tuple[str, bool], _Player] = {}
        self.train()
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        options: dict[str, Any] = {"lr": lr_schedule(1), **self.optimizer_kwargs}
        self.optimizer = self.optimizer_class(trained, **options)

    def _build(self, lr_schedule: Callable[[float], float]) -> None:
        """Build none of SB3's networks."""

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            "observation_space": self.observation_space,
            "action_space": self.action_space,
            "lr_schedule": self._dummy_schedule,
            "make_model": self.make_model,
            "temperature": self.temperature,
            "optimizer_class": self.optimizer_class,
            "optimizer_kwargs": self.optimizer_kwargs,
        }

    @torch.no_grad()
    def forward(self, obs: Tensor, deterministic: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Sample the next token of each slot.

        Args:
            obs: int64 (N, L), row i is the text of slot i.
            deterministic: take the most probable token.

        Returns:
            Tokens (N,), values (N, 1), log-probs (N,).
        """
        step = self._play("rollout", obs, deterministic)
        logprobs = self.evaluate_actions(obs, step.tokens)[1] if deterministic else step.logprobs
        return step.tokens, step.values[:, None], logprobs

    def _predict(self, observation: Any, deterministic: bool = False) -> Tensor:
        # A cache of its own: evaluation may come in the middle of a rollout.
        return self._play("predict", observation, deterministic).tokens

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Evaluate tokens with one pass per distinct text.

        Args:
            obs: int64 (B, L), the text before each token.
            actions: int64 (B,).

        Returns:
            Values (B, 1), log-probs (B,), entropies (B,).
        """
        products = min(len(actions), _MAX_TOKENS) * 4 * self.model.policy_size**2  # of a feed-forward layer
        if obs.device.type != "cpu":
            products = math.inf
        with small_pass(products):
            values, logprobs, entropy = small_backward(products, *self._evaluate(obs, actions))
        return values, logprobs, entropy

    def _evaluate(self, obs: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        found_texts = texts_of(_tokens(obs).cpu().numpy(), actions.cpu().numpy())
        ids, lengths, starts, owner, column = (torch.from_numpy(array).to(obs.device) for array in found_texts)
        tables, at = [], []
        for part in micro_batches(torch.arange(len(lengths), device=obs.device), lengths, self.how, _MAX_TOKENS):
            number = torch.full_like(lengths, -1)
            number[part.texts] = torch.arange(len(part.texts), device=obs.device)
            steps = (number[owner] >= 0).nonzero()[:, 0]
            rows, columns = number[owner[steps]], column[steps]
            mask = torch.zeros(len(part.texts), int(columns.max()) + 1, dtype=torch.bool, device=obs.device)
            mask[rows, columns] = True
            texts = ids[part.texts, : int(lengths[part.texts].max())]
            figures = self.model(texts, starts[part.texts], mask, self.temperature, part.layout)
            tables.append(torch.stack([figure[rows, columns] for figure in figures]))
            at.append(steps)
        logprobs, values, entropy = torch.cat(tables, 1)[:, torch.cat(at).argsort()]
        return values[:, None], logprobs, entropy

    def get_distribution(self, obs: Any) -> Distribution:
        """Give the distribution of each text's next token, from a pass over the whole text."""
        ids, lengths = _cut(_tokens(obs))
        states = self.model.policy_hidden(ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
        logits = self.model.logits(states[torch.arange(len(ids), device=ids.device), lengths - 1])
        assert isinstance(self.action_dist, CategoricalDistribution)
        return self.action_dist.proba_distribution(action_logits=logits / self.temperature)

    def predict_values(self, obs: Any) -> Tensor:
        """Give the value of each text (B, 1).

        Where the texts go on with those being played, and no gradient is wanted, as at a rollout's end, it is that of the next
        step, which is then played when ``forward`` asks for it; else a pass over the whole texts gives it.
        """
        player = self._players.get(("rollout", False))
        if player is not None and not torch.is_grad_enabled():
            ahead = player.look(_tokens(obs), self._weights())
            if ahead is not None:
                return ahead.values[:, None]
        ids, lengths = _cut(_tokens(obs))
        return self.model.state_values(ids, lengths, torch.ones(len(ids), 1, dtype=torch.bool, device=ids.device))

    def _play(self, door: str, obs: Any, greedy: bool) -> Step:
        obs, weights = _tokens(obs), self._weights()
        player = self._players.get((door, greedy))
        if player is None or player.num_slots < len(obs) or not (weights == player.weights or player.device == self.device):
            seed = int(torch.randint(2**31, ()))  # of the generator that SB3's seed seeds
            player = _Player(self.model, len(obs), seed, self.temperature, greedy)
            self._players[door, greedy] = player
        return player.act(obs, weights)

    def train(self, mode: bool = True) -> LanguageModelPolicy:
        """Set training mode, as SB3 does before a rollout and before an update; see ``nn.Module``."""
        self._watched = list(self.model.parameters())  # walking the model for each token costs more than asking them
        return super().train(mode)

    def _weights(self) -> Any:
        """Give what changes when a weight does, whoever writes: a write counts up a version, or puts other memory there."""
        return [(weight.data_ptr(), weight._version) for weight in self._watched]


class _Given(NamedTuple):
    """What a player is asked about."""

    texts: npt.NDArray[np.int64]
    """(n, L), right-padded with -1."""
    lengths: npt.NDArray[np.int64]
    """(n,)."""
    goes_on: npt.NDArray[np.bool_]
    """(n,), where a text begins with what its row holds, and is longer."""


class _Player:
    """A language model with a cache row per position of the batch, and the texts that the rows hold."""

    def __init__(self, model: ActorCritic, num_slots: int, seed: int, temperature: float, greedy: bool) -> None:
        self.num_slots = num_slots
        self.device = model.lm.device
        # The most probable token is what is left of the distribution after a top-k of 1.
        self._policy = CausalLMPolicy(model, num_slots, seed=seed, temperature=temperature, top_k=1 if greedy else None)
        self._seen = np.full((num_slots, model.context_length), -1)  # the texts that the rows hold
        self._cached = np.zeros(num_slots, dtype=np.int64)  # their tokens
        self.weights: Any = None
        """Those that the rows were made with."""
        self._ahead: Step | None = None

    def act(self, obs: Tensor, weights: Any) -> Step:
        """Sample for each row of ``obs``; ``weights`` changes when the weights do."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and self._holds(obs, weights):
            return ahead
        return self._sample(obs, weights, self._compare(obs, weights))

    def look(self, obs: Tensor, weights: Any) -> Step | None:
        """Give what ``act`` will do next for ``obs``; None where these are not the rows' texts, which would be given up."""
        if len(obs) != np.count_nonzero(self._cached):
            return None
        if self._ahead is None or not self._holds(obs, weights):
            given = self._compare(obs, weights)
            if not given.goes_on.any():
                return None
            self._ahead = self._sample(obs, weights, given)
        return self._ahead

    def _holds(self, obs: Tensor, weights: Any) -> bool:
        """Tell whether ``obs`` are the texts that the rows hold."""
        return (
            weights == self.weights
            and len(obs) == np.count_nonzero(self._cached)
            and np.array_equal(obs.cpu().numpy(), self._seen[: len(obs), : obs.shape[1]])
        )

    def _compare(self, obs: Tensor, weights: Any) -> _Given:
        texts = obs.cpu().numpy()
        lengths = (texts >= 0).sum(1)
        if weights != self.weights:
            return _Given(texts, lengths, np.zeros(len(texts), dtype=np.bool_))
        seen, cached = self._seen[: len(texts), : texts.shape[1]], self._cached[: len(texts)]
        begins = ((texts == seen) | (seen < 0)).all(1)
        return _Given(texts, lengths, begins & (cached > 0) & (cached < lengths))

    def _sample(self, obs: Tensor, weights: Any, given: _Given) -> Step:
        n = len(obs)
        if n < self.num_slots or not given.goes_on.all():
            stays = np.zeros(self.num_slots, dtype=np.bool_)
            stays[:n] = given.goes_on
            self._policy.reset_slots(np.flatnonzero(~stays))
        self.weights = None  # until the pass is through
        with torch.inference_mode():  # some percent faster; the cache is only ever used in it
            step = self._policy.act(obs, np.arange(n), given.lengths)
        self.weights = weights
        self._seen[:n, : obs.shape[1]], self._cached[:n], self._cached[n:] = given.texts, given.lengths, 0
        return Step(step.tokens.clone(), step.logprobs.clone(), step.values.clone())  # that may go into a loss


class Texts(NamedTuple):
    """E texts that hold B steps, a step being a token and the text before it."""

    ids: npt.NDArray[np.int64]
    """(E, L + 1), padded with 0."""
    lengths: npt.NDArray[np.int64]
    """(E,), tokens of each."""
    starts: npt.NDArray[np.int64]
    """(E,), where the first token stands that is a step's."""
    text: npt.NDArray[np.int64]
    """(B,), the text that holds each step."""
    column: npt.NDArray[np.int64]
    """(B,), where in the text, from its start."""


def texts_of(obs: npt.NDArray[np.int64], actions: npt.NDArray[np.int64]) -> Texts:
    """Find the fewest texts that hold all steps: a step whose tokens begin those of another is a part of it.

    In alphabetical order what begins another text stands before it, and all that begin with the same stand together, so a step
    need only be compared with the next.

    Args:
        obs: int64 (B, L), right-padded with -1.
        actions: int64 (B,).
    """
    count, places = len(obs), (obs >= 0).sum(1)
    texts = np.concatenate([obs, np.full((count, 1), -1)], 1)
    texts[np.arange(count), places] = actions
    # Numbers whose bytes sort as they do; padding becomes 0, the least.
    keys = np.ascontiguousarray((texts + 1).astype(">u4")).view(f"S{4 * texts.shape[1]}")[:, 0]
    order = np.argsort(keys, kind="stable")
    texts, ends = texts[order], places[order]
    goes_on = np.zeros(count, dtype=np.bool_)
    goes_on[:-1] = ((texts[:-1] == texts[1:]) | (np.arange(texts.shape[1]) > ends[:-1, None])).all(1)
    number = np.concatenate([[0], np.cumsum(~goes_on[:-1])])
    last = np.flatnonzero(~goes_on)
    starts = ends[np.concatenate([[0], last[:-1] + 1])]
    text = np.empty(count, dtype=np.int64)
    text[order] = number
    return Texts(np.maximum(texts[last], 0), ends[last] + 1, starts, text, places - starts[text])


def _tokens(obs: Any) -> Tensor:
    if obs.is_floating_point():
        raise ValueError(f"observations are {obs.dtype}, not token ids; take wrappers that change them away (norm_obs=False)")
    return obs


def _cut(obs: Tensor) -> tuple[Tensor, Tensor]:
    """Cut observations to the longest text. Returns ids padded with 0, and lengths (B,)."""
    lengths = (obs >= 0).sum(1)
    return obs[:, : int(lengths.max())].clamp(min=0), lengths


def _check_fit(model: Any, observation_space: Any, action_space: Any) -> None:
    if not isinstance(model, ActorCritic):
        raise ValueError(f"make_model gives a {type(model).__name__}; it must give an ActorCritic")
    if model.value_lm is not None:
        raise ValueError(
            "the model has a value model of its own, which is run over finished texts; SB3 asks for a value with each token, "
            "make ActorCritic without value_lm"
        )
    if not isinstance(observation_space, gym.spaces.Box) or not np.issubdtype(observation_space.dtype, np.integer):
        raise ValueError(f"observation_space is {observation_space}; the policy takes token ids, observation='tokens'")
    if observation_space.shape[0] > model.context_length:
        raise ValueError(
            f"observations hold {observation_space.shape[0]} tokens but the model was made for {model.context_length}; make "
            "ActorCritic with the environment's context_length"
        )
    if action_space.n != model.vocab_size:
        raise ValueError(f"there are {action_space.n} actions but the model's tokenizer has {model.vocab_size} tokens")

"""The scalar door: one text at a time, as a plain ``gymnasium.Env``.

Left out on purpose: speed. The vector door plays many texts at once; this one is for Gymnasium's single-environment
hosts and for reading. Both go through ``Rules``.
"""

from __future__ import annotations

from typing import Any, Literal

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from textgym.episode import Episode, Release
from textgym.render import RENDER_FPS, Renderer
from textgym.rules import RUNNING, Rules, check_options, episode_return
from textgym.text import Text

_VECTOR_ONLY = {
    *("autoreset_mode", "output", "device", "group_size", "keep_episodes", "max_pending", "on_reward_error"),
    *("reward_workers", "reward_worker_kind", "reward_timeout"),
}


class TextGenEnv(gym.Env[Any, Any]):
    """Generate one text, a token per step, and be paid per token when it is finished.

    Description:
        The agent writes a response to a prompt, one token per action. Nothing is paid before the response is finished;
        then the task judges the whole text and one reward **per token** is released, in ``info``.

    Prompt:
        Drawn by the task from the environment's generator, or ``reset(options={"prompt": ...})``.

    Action space:
        ``Discrete(V)``, V the size of the tokenizer; of these, ``action_masks()`` where the task has action masks.

    Observation space:
        ``Box(-1, V - 1, (context_length,), int64)``: prompt, then response, right-padded with -1, which is no token.
        With ``observation="dict"``: ``tokens`` as above, ``length`` (1,), ``action_mask`` (V,).

    Rewards and streams:
        0.0 before the end, then the sum of the token rewards. ``textgym.release(info)`` reads them, with the stream of
        each token.

    Episode end:
        End-of-text token, a stop string, the task's own verdict, or ``max_new_tokens``; the last is ``truncated`` where
        the task says ``length_limit = "truncate"``. Where the task replies, end-of-text ends the agent's turn; the reply is
        in the observation of the same step, and the episode ends when the task has nothing to say.

    Arguments:
        ``task`` (environment id, short name, "module:Name", class or object), ``observation``, ``info_text``,
        ``render_mode``; everything else goes to the task's constructor:
        ``gym.make("TextGen-v0", prompts=[...], tokenizer=tok, reward_fn=fn)``.

    Version history:
        v0: first version.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own way)
        "render_modes": ["human", "ansi", "rgb_array"],
        "render_fps": RENDER_FPS,
    }

    _max_episode_steps: int | None = None
    """A ``TimeLimit`` around this environment answers with its own; see ``time_limits``."""

    def __init__(
        self,
        task: Any = None,
        *,
        observation: Literal["tokens", "dict"] = "tokens",
        info_text: bool = False,
        render_mode: Literal["human", "ansi", "rgb_array"] | None = None,
        **task_kwargs: Any,
    ) -> None:
        for name in _VECTOR_ONLY & task_kwargs.keys():
            raise ValueError(
                f"{name} is an argument of the native vector environment: gym.make_vec without vectorization_mode "
                "(Gymnasium's own vector environments take theirs in vector_kwargs)"
            )
        self.rules = Rules(task, observation=observation, info_text=info_text, **task_kwargs)
        self.observation_space = self.rules.observation_space
        self.action_space = self.rules.action_space
        self.render_mode = render_mode
        self._renderer = Renderer(render_mode, self.rules.tokenizer)
        self._shown: tuple[Episode, Release] | None = None  # the ended text, until the next reset
        self._text: Text | None = None
        self._count = 0
        self._running = False
        self._uncounted = False  # an episode was begun, and has neither ended nor been given up

    @property
    def max_new_tokens(self) -> int:
        """How many tokens the agent may write in one text."""
        return self.rules.max_new_tokens

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. ``options={"prompt": text or Prompt}`` asks for a certain prompt; a seed restarts the count.

        Returns:
            Observation and an empty info.
        """
        super().reset(seed=seed)
        options = check_options(options, ("prompt",))
        if self._uncounted:
            self._count += 1  # the episode is given up; its number is not used again
        if seed is not None:
            self._count = 0  # the same seed gives the same episodes, numbers included
        prompt = self.rules.prompt(self.np_random, options, group_id=self._count)
        self._text = Text(self.rules, prompt, self._count)
        self._running = self._uncounted = True
        self._shown = None
        self._draw_for_humans()
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Append one token.

        Returns:
            Observation, reward (0.0 before the end), terminated, truncated, info (the release, at the end).

        Raises:
            ValueError: the action is no token, or one that the task's action mask leaves out.
            gymnasium.error.ResetNeeded: no episode is running.
        """
        if not self._running or self._text is None:
            raise gym.error.ResetNeeded("no episode is running; call reset() before step()")
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action!r}; allowed are whole numbers 0..{self.rules.vocab_size - 1}, one token id")
        masks = self.rules.masks
        if masks is not None and not masks.table.rows[self._text.mask_number, int(action)]:
            raise masks.forbidden(action, self._text.mask_number, f"episode {self._text.episode_id}")
        self._running = False  # until the step is through: what the task raises leaves a text that nobody scored
        code = self._text.write(int(action))
        if code == RUNNING:
            self._running = True
            self._draw_for_humans()
            return self._observation(), 0.0, False, False, {}
        episode = self._text.episode(code)
        self._count += 1
        self._uncounted = False
        (release,) = self.rules.release([episode], [0])
        info = self.rules.info(episode, release)
        self._shown = (episode, release)
        self._draw_for_humans()
        return self._observation(), episode_return(release), release.terminated, release.truncated, info

    def action_masks(self) -> npt.NDArray[np.bool_]:
        """Give the tokens that the task allows next, bool (V,); all where it has no masks, and where no text is running."""
        if self.rules.masks is None or self._text is None:
            return np.ones(self.rules.vocab_size, dtype=np.bool_)
        return self.rules.masks.table.rows[self._text.mask_number].copy()

    def render(self) -> Any:
        """Draw the text so far, with its rewards once they are released.

        Returns:
            "ansi": str; "rgb_array": uint8 (height, width, 3); "human": None, it is drawn in the terminal at every step.
        """
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing without a render_mode; give one to make, e.g. render_mode='ansi'")
            return None
        if self._text is None:
            raise gym.error.ResetNeeded("there is no text to draw; call reset() before render()")
        episode, release = self._shown or (self._text.episode(RUNNING), None)
        return self._renderer.draw(episode, release)

    def _draw_for_humans(self) -> None:
        if self.render_mode == "human":
            self.render()

    def close(self) -> None:
        """Leave the terminal as it is."""
        self._renderer.close()

    def _observation(self) -> Any:
        assert self._text is not None
        tokens = self._text.tokens.copy()
        if not self.rules.dict_observation:
            return tokens
        return {
            "tokens": tokens,
            "length": np.array([self._text.length], dtype=np.int64),
            "action_mask": self.action_masks().astype(np.int8),
        }

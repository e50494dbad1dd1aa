"""A causal language model with a value head, and where such models come from.

Left out on purpose: any model of our own. The language model is an unmodified Hugging Face one; only a linear value head is
added beside it. It reads the hidden state that the language model's head reads, or that of a second, separate model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textgym.tokenizer import TextTokenizer
from textgym_agents.head import CHUNK_ELEMENTS, Allowed, is_plain, token_logprobs, working_dtype
from textgym_agents.lora import AdaptersOff, has_adapters, load_merged, merged_state
from textgym_agents.masks import Windows, layer_windows
from textgym_agents.packing import Layout
from textgym_agents.slots import SlotCache
from textgym_agents.support import LogitRule, check_fit, check_value_model, head_of, probe


class ActorCritic(nn.Module):
    """A causal language model and a linear value head, on the same hidden state or on that of a value model.

    The states of a text are one tensor (..., hidden): the language model's, then the value model's where there is one.
    ``logits`` and ``values`` each read their part, so whoever runs the model need not know of a second one.

    The model stays in eval mode in training too: dropout would make the policy that samples another one than the policy
    that learns, and the ratio of the two would start away from 1.

    Args:
        lm: a Hugging Face causal model with a standard KV cache.
        tokenizer: the environment's. Logits beyond its size V (padded vocabularies) are left out everywhere.
        context_length: most tokens of prompt and response.
        value_lm: a model (causal or base) whose hidden states give the values; None: the language model's own do. It has
            the dtype, device and sliding windows of ``lm``, because both read the same masks.

    Raises:
        ValueError: a model is smaller than the tokenizer or the context, or is of a kind that is not supported.
    """

    def __init__(
        self, lm: PreTrainedModel, tokenizer: TextTokenizer, context_length: int, value_lm: PreTrainedModel | None = None
    ) -> None:
        super().__init__()
        check_fit(lm, tokenizer.vocab_size, context_length)
        self.lm = lm.eval()
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.context_length = context_length
        self.windows: Windows = layer_windows(lm.config.get_text_config(), context_length)
        self.logit_rule = LogitRule.read(lm.config)
        self.policy_size: int = head_of(lm).weight.shape[1]
        self.value_lm: Any = None
        value_size = 0
        if value_lm is not None:
            check_value_model(value_lm, lm, tokenizer.vocab_size, context_length)
            self.value_lm = value_lm.base_model.eval()  # a head of its own would only cost memory
            value_size = int(value_lm.config.get_text_config().hidden_size)
        # Starts at 0, so that no random number is drawn and the first advantages are the returns themselves.
        self.value_head = nn.utils.skip_init(nn.Linear, value_size or self.policy_size, 1, dtype=lm.dtype, device=lm.device)
        for parameter in self.value_head.parameters():
            nn.init.zeros_(parameter)
        probe(self)

    def train(self, mode: bool = True) -> ActorCritic:
        """Keep the model in eval mode; see the class."""
        return super().train(False)

    @property
    def num_layers(self) -> int:
        """Attention layers of the language model, as the cache needs them."""
        return int(self.lm.config.get_text_config().num_hidden_layers)

    def slot_cache(self, num_rows: int) -> SlotCache:
        """Make an empty cache of the language model with a row for each of ``num_rows`` slots."""
        return SlotCache(self.num_layers, num_rows, self.context_length, self.windows)

    def policy_hidden(self, ids: Tensor, positions: Tensor, mask: Any = None, cache: SlotCache | None = None) -> Tensor:
        """Run the language model without its head. ids, positions (B, q) -> (B, q, policy_size); masks: ``attention_masks``."""
        return _run(self.lm.base_model, ids, positions, mask, cache)

    def value_hidden(self, ids: Tensor, positions: Tensor, mask: Any = None) -> Tensor:
        """Run the model whose states the value head reads. ids, positions (B, q) -> (B, q, its hidden size)."""
        return _run(self.lm.base_model if self.value_lm is None else self.value_lm, ids, positions, mask, None)

    def hidden(self, ids: Tensor, positions: Tensor, mask: Any = None) -> Tensor:
        """Run the models without their heads. ids, positions (B, q) -> (B, q, hidden); masks as ``attention_masks``."""
        policy = self.policy_hidden(ids, positions, mask)
        return policy if self.value_lm is None else torch.cat([policy, self.value_hidden(ids, positions, mask)], -1)

    def logits(self, hidden: Tensor, head: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Give the float32 logits of the V tokens, as the model itself does. (..., hidden) -> (..., V).

        Args:
            hidden: the states.
            head: does what the model's own head does.
        """
        of_states = head or head_of(self.lm)
        return self.logit_rule(of_states(hidden[..., : self.policy_size])[..., : self.vocab_size]).float()

    def values(self, hidden: Tensor) -> Tensor:
        """Give the value of each state. (..., hidden) -> (...,), float32."""
        states = hidden if self.value_lm is None else hidden[..., self.policy_size :]
        return self.value_head(states).squeeze(-1).float()

    def start_values_from_policy(self) -> None:
        """Copy the language model's weights into a value model of the same shape, as a warm-up leaves them."""
        if self.value_lm is not None:
            self.value_lm.load_state_dict(self.lm.base_model.state_dict())

    def frozen_reference(self) -> Callable[..., tuple[Tensor, ...]]:
        """Give the model as it is now for a KL penalty, called like this one: it stays so while this one learns.

        With adapters it is this model with its adapters off, which holds no second copy and is the model as it was before
        ``add_lora``; else a frozen copy. Only its log-probs and entropies mean something.
        """
        if has_adapters(self.lm):
            return AdaptersOff(self)
        return ActorCritic(copy.deepcopy(self.lm), self.tokenizer, self.context_length).requires_grad_(False)

    def forward(
        self,
        ids: Tensor,
        prompt_lengths: Tensor,
        mask: Tensor,
        temperature: float = 1.0,
        layout: Layout | None = None,
        allowed: Allowed | None = None,
    ) -> tuple[Tensor, ...]:
        """Evaluate texts, one forward pass per text.

        Args:
            ids: int64 (B, L), prompt then response, right-padded with any token.
            prompt_lengths: int64 (B,).
            mask: bool (B, T), the response tokens to evaluate; column t is response token t.
            temperature: of the policy that sampled.
            layout: of the B texts in rows that hold several; None: a row each.
            allowed: the tokens that the task allowed at each response token, (B, T); None: all.

        Returns:
            logprobs, values, entropy: float32 (B, T) each, 0 where not ``mask``. ``values[:, t]`` is V before token t.
        """
        rows, columns = mask.nonzero(as_tuple=True)
        places = prompt_lengths[rows] + columns
        states = self._states_before(self.hidden, ids, rows, places, layout)
        if allowed is not None:
            allowed = Allowed(allowed.rows, allowed.numbers[rows, columns])
        logprobs, entropy = self._head_in_chunks(states, ids[rows, places], temperature, allowed)
        values = self.values(states)
        blank = torch.zeros(mask.shape, dtype=torch.float32, device=ids.device)
        return tuple(blank.index_put((rows, columns), x.float()) for x in (logprobs, values, entropy))

    def state_values(self, ids: Tensor, prompt_lengths: Tensor, mask: Tensor, layout: Layout | None = None) -> Tensor:
        """Give only the values, running only the model that they come from; see ``forward``.

        Column t of ``mask`` asks for V before response token t; of a text with n response tokens column n is its final state.
        """
        rows, columns = mask.nonzero(as_tuple=True)
        states = self._states_before(self.value_hidden, ids, rows, prompt_lengths[rows] + columns, layout)
        values = self.value_head(states).squeeze(-1).float()
        return torch.zeros(mask.shape, dtype=torch.float32, device=ids.device).index_put((rows, columns), values)

    def _states_before(
        self, run: Callable[..., Tensor], ids: Tensor, rows: Tensor, places: Tensor, layout: Layout | None
    ) -> Tensor:
        """Give the states (K, hidden) of the tokens before ``places`` (K,) in the texts ``rows`` (K,)."""
        if layout is None:
            # Padding is on the right and attention is causal, so no token of a text ever sees it: no mask is needed.
            hidden = run(ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
            starts = torch.arange(0, ids.numel(), ids.shape[1], device=ids.device)
        else:
            masks = layout.masks(self.windows, working_dtype(head_of(self.lm).weight))
            hidden = run(layout.place(ids), layout.positions, masks)
            starts = layout.starts
        # The state before a token predicts it.
        return hidden.flatten(0, 1).index_select(0, starts[rows] + places - 1)

    def _head_in_chunks(
        self, states: Tensor, tokens: Tensor, temperature: float, allowed: Allowed | None
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropy of K tokens, in chunks: the logits of all K are never in memory at once."""
        head, rule = head_of(self.lm), self.logit_rule
        if rule.cap is None and is_plain(head):
            states = states[..., : self.policy_size]
            return token_logprobs(states, head, tokens, self.vocab_size, temperature / rule.factor, allowed)
        size = max(1, CHUNK_ELEMENTS // self.vocab_size)
        parts = []
        for start in range(0, len(states), size):
            at = slice(start, start + size)
            part = None if allowed is None else Allowed(allowed.rows, allowed.numbers[at])
            parts.append(checkpoint(self._token_logprobs, states[at], tokens[at], temperature, part, use_reentrant=False))
        logprobs, entropy = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropy)

    def _token_logprobs(
        self, states: Tensor, tokens: Tensor, temperature: float, allowed: Allowed | None
    ) -> tuple[Tensor, Tensor]:
        logits = self.logits(states) / temperature
        if allowed is None:
            logprobs = logits.log_softmax(-1)
            return logprobs.gather(-1, tokens[:, None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(-1)
        forbidden = allowed.forbidden()
        logprobs = logits.masked_fill(forbidden, -torch.inf).log_softmax(-1)
        finite = logprobs.masked_fill(forbidden, 0.0)  # 0 log 0 is 0
        return logprobs.gather(-1, tokens[:, None]).squeeze(-1), -(logprobs.exp() * finite).sum(-1)

    def save(self, folder: str | Path) -> None:
        """Write the model in files that load anywhere.

        ``folder/policy`` holds model and tokenizer, for AutoModelForCausalLM, adapters merged into the weights;
        ``folder/value_head.safetensors`` the value head; ``folder/value`` the value model, for AutoModel, where there is one.
        """
        folder = Path(folder)
        for config in (self.lm.config, self.lm.generation_config):
            if config is not None and config.eos_token_id is None:  # so that `generate` knows where a text ends
                config.eos_token_id, config.bos_token_id = self.tokenizer.eos_token_id, self.tokenizer.bos_token_id
        _save_model(self.lm, folder / "policy")
        self.tokenizer.save_pretrained(folder / "policy")
        if self.value_lm is not None:
            _save_model(self.value_lm, folder / "value")
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.value_head.state_dict().items()}
        save_file(weights, str(folder / "value_head.safetensors"))

    def load(self, folder: str | Path) -> None:
        """Read what ``save`` wrote into this model. Adapters start anew over what is read, which is then their reference.

        Raises:
            ValueError: one of the two has a value model and the other has not.
        """
        folder = Path(folder)
        if (folder / "value").is_dir() != (self.value_lm is not None):
            there, here = ("a", "none") if self.value_lm is None else ("no", "one")
            raise ValueError(f"{folder} holds {there} value model but this model has {here}; build it as it was saved")
        options = {"local_files_only": True, "dtype": self.lm.dtype}
        _load_into(self.lm, AutoModelForCausalLM.from_pretrained(folder / "policy", **options))
        if self.value_lm is not None:
            _load_into(self.value_lm, AutoModel.from_pretrained(folder / "value", **options))
        self.value_head.load_state_dict(load_file(str(folder / "value_head.safetensors")))


def _run(backbone: Any, ids: Tensor, positions: Tensor, mask: Any, cache: Any) -> Tensor:
    out = backbone(
        input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=cache is not None
    )
    return out.last_hidden_state


def _save_model(lm: PreTrainedModel, folder: Path) -> None:
    lm.save_pretrained(folder, state_dict=merged_state(lm) if has_adapters(lm) else None)


def _load_into(lm: PreTrainedModel, saved: PreTrainedModel) -> None:
    if has_adapters(lm):
        load_merged(lm, saved.state_dict())
    else:
        lm.load_state_dict(saved.state_dict())


def tiny_gpt2(
    vocab_size: int, context_length: int, *, seed: int = 0, layers: int = 2, width: int = 64, heads: int = 4
) -> PreTrainedModel:
    """Build the embedded default: a GPT-2 shape with random weights (2 x 64: about 0.1M parameters), nothing downloaded."""
    config = GPT2Config(
        vocab_size=vocab_size,
        n_positions=context_length,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        activation_function="gelu_pytorch_tanh",  # GPT-2's own function, in one operation
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):  # transformers draws weights from the global generator; leave it as it was
        torch.manual_seed(seed)
        return GPT2LMHeadModel(config)


def load_tokenizer(name_or_path: str) -> Any:
    """Load the tokenizer that belongs to a model, from a folder or a name in the local hub cache or hub.

    Raises:
        ValueError: there is none; transformers would make up an empty one for a folder without its files.
    """
    if Path(name_or_path).is_dir() and not list(Path(name_or_path).glob("*token*.json")):
        raise ValueError(f"{name_or_path} has no tokenizer files; save the model's tokenizer there with save_pretrained")
    return _load(AutoTokenizer, name_or_path)


def load_lm(name_or_path: str, dtype: torch.dtype = torch.float32, attn_implementation: str | None = None) -> PreTrainedModel:
    """Load a causal language model, from a folder or a name in the local hub cache or hub. Code in it is never run.

    Args:
        name_or_path: the folder or the name.
        dtype: of the weights, and of all that is computed with them.
        attn_implementation: "sdpa" or "eager"; None: what transformers takes for this model.

    Raises:
        ValueError: there is none, or it is no causal language model.
    """
    options = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    return _load(AutoModelForCausalLM, name_or_path, dtype=dtype, **options)


def _load(kind: Any, name_or_path: str, **kwargs: Any) -> Any:
    try:
        return kind.from_pretrained(name_or_path, trust_remote_code=False, **kwargs)
    except (OSError, ValueError) as error:
        what = "a folder" if Path(name_or_path).is_dir() else "a model's name (there is no such folder)"
        raise ValueError(f"cannot load {name_or_path!r} as {what}: {error}") from error

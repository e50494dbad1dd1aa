"""A causal language model with a value head, and where such models come from.

Left out on purpose: any model of our own. The language model is an unmodified Hugging Face one; only a linear value head is
added beside it, reading the same hidden state that the language model's head reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from textgym.tokenizer import TextTokenizer
from textgym_agents.head import CHUNK_ELEMENTS, is_plain, token_logprobs, working_dtype
from textgym_agents.masks import layer_windows
from textgym_agents.packing import Layout
from textgym_agents.slots import SlotCache
from textgym_agents.support import check_fit, head_of, probe


class ActorCritic(nn.Module):
    """A causal language model and a linear value head on the same hidden state.

    The model stays in eval mode in training too: dropout would make the policy that samples another one than the policy
    that learns, and the ratio of the two would start away from 1.

    Args:
        lm: a Hugging Face causal model with a standard KV cache.
        tokenizer: the environment's. Logits beyond its size V (padded vocabularies) are left out everywhere.
        context_length: most tokens of prompt and response.

    Raises:
        ValueError: the model is smaller than the tokenizer or the context, or is of a kind that is not supported.
    """

    def __init__(self, lm: PreTrainedModel, tokenizer: TextTokenizer, context_length: int) -> None:
        super().__init__()
        check_fit(lm, tokenizer.vocab_size, context_length)
        self.lm = lm.eval()
        self.tokenizer = tokenizer
        self.vocab_size = tokenizer.vocab_size
        self.context_length = context_length
        self.windows = layer_windows(lm.config.get_text_config(), context_length)
        self.hidden_size: int = head_of(lm).weight.shape[1]
        # Starts at 0, so that no random number is drawn and the first advantages are the returns themselves.
        self.value_head = nn.utils.skip_init(nn.Linear, self.hidden_size, 1, dtype=lm.dtype, device=lm.device)
        for parameter in self.value_head.parameters():
            nn.init.zeros_(parameter)
        probe(self)

    def train(self, mode: bool = True) -> ActorCritic:
        """Keep the model in eval mode; see the class."""
        return super().train(False)

    @property
    def num_layers(self) -> int:
        """Attention layers, as the cache needs them."""
        return int(self.lm.config.get_text_config().num_hidden_layers)

    def slot_cache(self, num_rows: int) -> SlotCache:
        """Make an empty cache with a row for each of ``num_rows`` slots."""
        return SlotCache(self.num_layers, num_rows, self.context_length, self.windows)

    def hidden(self, ids: Tensor, positions: Tensor, mask: Any = None, cache: SlotCache | None = None) -> Tensor:
        """Run the language model without its head. ids, positions (B, q) -> (B, q, hidden); masks as ``attention_masks``."""
        backbone = getattr(self.lm, self.lm.base_model_prefix)
        out = backbone(
            input_ids=ids, position_ids=positions, attention_mask=mask, past_key_values=cache, use_cache=cache is not None
        )
        return out.last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        """Give the float32 logits of the V tokens. (..., hidden) -> (..., V)."""
        return head_of(self.lm)(hidden)[..., : self.vocab_size].float()

    def values(self, hidden: Tensor) -> Tensor:
        """Give the value of each state. (..., hidden) -> (...,), float32."""
        return self.value_head(hidden).squeeze(-1).float()

    def forward(
        self, ids: Tensor, prompt_lengths: Tensor, mask: Tensor, temperature: float = 1.0, layout: Layout | None = None
    ) -> tuple[Tensor, ...]:
        """Evaluate texts, one forward pass per text.

        Args:
            ids: int64 (B, L), prompt then response, right-padded with any token.
            prompt_lengths: int64 (B,).
            mask: bool (B, T), the response tokens to evaluate; column t is response token t.
            temperature: of the policy that sampled.
            layout: of the B texts in rows that hold several; None: a row each.

        Returns:
            logprobs, values, entropy: float32 (B, T) each, 0 where not ``mask``. ``values[:, t]`` is V before token t.
        """
        rows, columns = mask.nonzero(as_tuple=True)
        places = prompt_lengths[rows] + columns
        if layout is None:
            # Padding is on the right and attention is causal, so no token of a text ever sees it: no mask is needed.
            hidden = self.hidden(ids, torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
            starts = torch.arange(0, ids.numel(), ids.shape[1], device=ids.device)
        else:
            masks = layout.masks(self.windows, working_dtype(head_of(self.lm).weight))
            hidden = self.hidden(layout.place(ids), layout.positions, masks)
            starts = layout.starts
        # The state before a token predicts it.
        states = hidden.flatten(0, 1).index_select(0, starts[rows] + places - 1)
        logprobs, entropy = self._head_in_chunks(states, ids[rows, places], temperature)
        values = self.values(states)
        blank = torch.zeros(mask.shape, dtype=torch.float32, device=ids.device)
        return tuple(blank.index_put((rows, columns), x.float()) for x in (logprobs, values, entropy))

    def _head_in_chunks(self, states: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Log-probs and entropy of K tokens, in chunks: the logits of all K are never in memory at once."""
        if is_plain(head_of(self.lm)):
            return token_logprobs(states, head_of(self.lm), tokens, self.vocab_size, temperature)
        size = max(1, CHUNK_ELEMENTS // self.vocab_size)
        parts = [
            checkpoint(self._token_logprobs, s, t, temperature, use_reentrant=False)
            for s, t in zip(states.split(size), tokens.split(size), strict=True)
        ]
        logprobs, entropy = zip(*parts, strict=True)
        return torch.cat(logprobs), torch.cat(entropy)

    def _token_logprobs(self, states: Tensor, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs = (self.logits(states) / temperature).log_softmax(-1)
        return logprobs.gather(-1, tokens[:, None]).squeeze(-1), -(logprobs.exp() * logprobs).sum(-1)

    def save(self, folder: str | Path) -> None:
        """Write ``folder/policy`` (model and tokenizer, for AutoModelForCausalLM) and ``folder/value_head.safetensors``."""
        folder = Path(folder)
        for config in (self.lm.config, self.lm.generation_config):
            if config is not None and config.eos_token_id is None:  # so that `generate` knows where a text ends
                config.eos_token_id, config.bos_token_id = self.tokenizer.eos_token_id, self.tokenizer.bos_token_id
        self.lm.save_pretrained(folder / "policy")
        self.tokenizer.save_pretrained(folder / "policy")
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.value_head.state_dict().items()}
        save_file(weights, str(folder / "value_head.safetensors"))

    def load(self, folder: str | Path) -> None:
        """Read what ``save`` wrote into this model."""
        lm = AutoModelForCausalLM.from_pretrained(Path(folder) / "policy", local_files_only=True, dtype=self.lm.dtype)
        self.lm.load_state_dict(lm.state_dict())
        self.value_head.load_state_dict(load_file(str(Path(folder) / "value_head.safetensors")))


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


def load_lm(name_or_path: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """Load a causal language model, from a folder or a name in the local hub cache or hub.

    Raises:
        ValueError: there is none.
    """
    return _load(AutoModelForCausalLM, name_or_path, dtype=dtype)


def _load(kind: Any, name_or_path: str, **kwargs: Any) -> Any:
    try:
        return kind.from_pretrained(name_or_path, **kwargs)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot load {name_or_path!r} as a folder or a model's name: {error}") from error

"""A tiny random model of every family and of every way in which its members differ."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.fakes.tiny_models import save_tokenizer, train_tokenizer

ROWS = 384

_COMMON = {
    "vocab_size": ROWS,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,  # logits then spread by about one, so that differences show
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
_GEMMA = _COMMON | {
    "model_type": "gemma3_text",
    "initializer_range": 0.06,
    "num_hidden_layers": 3,
    "head_dim": 32,
    "query_pre_attn_scalar": 32,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
_GPT2 = {
    "model_type": "gpt2",
    "vocab_size": ROWS,
    "n_positions": 128,
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "initializer_range": 0.06,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "long_factor": [1.0, 1.5, 2.0, 4.0, 6.0, 8.0],
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.4],
    "original_max_position_embeddings": 256,
    "partial_rotary_factor": 0.75,
}

FAMILIES: Mapping[str, dict[str, Any]] = {
    "llama": _COMMON | {"model_type": "llama", "tie_word_embeddings": False},
    "llama, tied, biases, own head size": _COMMON
    | {
        "model_type": "llama", "tie_word_embeddings": True, "head_dim": 24,
        "attention_bias": True, "mlp_bias": True,
    },
    "llama 3 rope": _COMMON
    | {"model_type": "llama", "head_dim": 32, "rope_parameters": _LLAMA3_ROPE},
    "llama, linear rope": _COMMON
    | {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
    },
    "mistral": _COMMON | {"model_type": "mistral", "head_dim": 24, "sliding_window": 64},
    "qwen2": _COMMON | {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen2, untied": _COMMON | {"model_type": "qwen2", "tie_word_embeddings": False},
    "qwen3": _COMMON | {"model_type": "qwen3", "head_dim": 32, "tie_word_embeddings": True},
    "qwen3, untied": _COMMON | {"model_type": "qwen3", "head_dim": 24},
    "gemma3": _GEMMA,
    "gemma3, untied, linear rope": _GEMMA
    | {
        "tie_word_embeddings": False,
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    },
    "phi3": _COMMON | {"model_type": "phi3"},
    "phi3, long rope, tied": _COMMON
    | {"model_type": "phi3", "tie_word_embeddings": True, "rope_parameters": _LONG_ROPE},
    "gpt2": _GPT2,
    "gpt2, untied, own inner size": _GPT2 | {"tie_word_embeddings": False, "n_inner": 96},
}  # fmt: skip
"""What differs, in the words of `config.json`."""


def make_tiny_family(folder: Path, name: str, *, seed: int = 0) -> Path:
    """Write a transformers folder with a random model of `FAMILIES[name]` and a tokenizer."""
    torch.manual_seed(seed)
    settings = dict(FAMILIES[name])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    model = AutoModelForCausalLM.from_config(config)
    for key, weight in model.named_parameters():
        if key.endswith("bias") or "norm" in key or ".ln_" in key:
            # those start as zeros and ones, which would hide a mistake
            weight.data += 0.1 * torch.randn_like(weight)
    model.save_pretrained(folder)
    save_tokenizer(train_tokenizer(ROWS), folder)
    return folder


def with_llama_cpps_gelu(model: Any) -> Any:
    """The model with GELU as llama.cpp computes it: looked up in a table of half precision."""
    for layer in model.modules():
        for name in ("act", "act_fn"):
            exact = getattr(layer, name, None)
            if exact is not None and "gelu" in type(exact).__name__.lower():
                setattr(layer, name, _LookedUp(exact))
    return model


class _LookedUp(torch.nn.Module):
    def __init__(self, exact: torch.nn.Module) -> None:
        super().__init__()
        self._exact = exact

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self._exact(values.half().float()).half().float()

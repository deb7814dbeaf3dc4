"""A random model of next to no work, with a real model's tokenizer."""

from pathlib import Path
from typing import Final

import numpy as np

from converters.gguf_output import PlannedTensor, write_gguf
from fedpt.gguf_file import GgufValue, read_gguf
from fedpt.proxy_tuning import Logits

_WIDTH: Final = 32
_HEADS: Final = 2
_INNER: Final = 64


def write_tiny(tokenizer_of: Path, target: Path) -> None:
    """Write a one-layer model of the llama architecture."""
    file = read_gguf(tokenizer_of)
    tokens = file.metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)  # of every tokenizer
    metadata: dict[str, GgufValue] = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.block_count": 1,
        "llama.context_length": 2048,
        "llama.embedding_length": _WIDTH,
        "llama.feed_forward_length": _INNER,
        "llama.attention.head_count": _HEADS,
        "llama.attention.head_count_kv": _HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": _WIDTH // _HEADS,
        "llama.vocab_size": len(tokens),
    }
    metadata |= {key: one for key, one in file.metadata.items() if key.startswith("tokenizer.")}
    write_gguf(target, metadata, _tensors(len(tokens)))


def _tensors(tokens: int) -> list[PlannedTensor]:
    rng = np.random.default_rng(0)

    def tensor(name: str, *shape: int) -> PlannedTensor:
        def load() -> Logits:
            return rng.normal(0, 0.1, shape).astype(np.float32)

        return PlannedTensor(f"{name}.weight", shape, "F32", load)

    square = ("attn_q", "attn_k", "attn_v", "attn_output")
    return [
        tensor("token_embd", tokens, _WIDTH),
        tensor("output_norm", _WIDTH),
        tensor("blk.0.attn_norm", _WIDTH),
        tensor("blk.0.ffn_norm", _WIDTH),
        *(tensor(f"blk.0.{name}", _WIDTH, _WIDTH) for name in square),
        tensor("blk.0.ffn_gate", _INNER, _WIDTH),
        tensor("blk.0.ffn_up", _INNER, _WIDTH),
        tensor("blk.0.ffn_down", _WIDTH, _INNER),
    ]

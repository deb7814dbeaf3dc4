"""What llama.cpp cannot bear in a well-formed GGUF file: it ends the process rather than refuse it.

Each rule is an assertion, a division or an unchecked index of llama.cpp's that a header can trip;
found by reading it and by `benchmarks.fuzz_gguf`. What it refuses politely is left to it. Pure; the
format's own rules are `fedpt.gguf_header`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from fedpt.gguf_header import GgufValue, TensorInfo
from fedpt.gguf_types import FLOAT32, GGML_TYPES, UNCOMPUTABLE

_MAX_LAYERS: Final = 512  # LLAMA_MAX_LAYERS
_MAX_EXPERTS: Final = 1024  # LLAMA_MAX_EXPERTS
_MAX_SIZE: Final = 1 << 24  # of one dimension of a layer; the largest models stay under 2^18
_MAX_CONTEXT: Final = (1 << 31) - 1  # llama.cpp's positions are 32 bits, signed
_ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope")

_ATTENTION_FAMILIES: Final = frozenset({"gemma3", "gpt2", "llama", "phi3", "qwen2", "qwen3"})
"""Families whose every layer is attention; elsewhere a head count of 0 may mean something."""

_WHOLE_ROTATION: Final = frozenset({"gemma3", "llama", "qwen2", "qwen3"})
"""Those of them that turn all of a head, and assert it."""

_SIZES: Final = (
    "embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "rope.dimension_count",
)  # fmt: skip
_ASKED_FOR: Final = ("block_count", "context_length", "embedding_length")
"""Without these libllama says no; without a count of heads it goes on with none."""
_FRACTIONS: Final = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
_LAYER_PREFIX: Final = "blk."
_PROJECTIONS: Final = {
    "attn_q.weight": (1, 0, 0),
    "attn_k.weight": (0, 1, 0),
    "attn_v.weight": (0, 1, 0),
    "attn_qkv.weight": (1, 2, 0),
    "attn_output.weight": (1, 0, 1),
}
"""How many times the heads' size, and the key heads' size, one axis of a matrix is."""
_PAIR: Final = (".lora_a", ".lora_b")
_IGNORED_BY_ADAPTERS: Final = "_norm.weight"


def require_loadable(metadata: Mapping[str, GgufValue], tensors: Mapping[str, TensorInfo]) -> None:
    """Refuse a file that would crash libllama when it is loaded or when it computes.

    Args:
        metadata: As `fedpt.gguf_header.parse_header` gives it.
        tensors: Likewise.

    Raises:
        ValueError: Says what is wrong. `fedpt.gguf_file` catches it.
    """
    _require_one_file(metadata)
    _require_computable(tensors)
    if metadata.get("general.type") == "adapter":
        _require_pairs(tensors)
        return
    numbers = _Numbers(metadata)
    _require_layers(numbers)
    _require_experts(numbers)
    _require_vocabulary(metadata)
    if numbers.family in _ATTENTION_FAMILIES:
        _require_attention(numbers)
        _require_projections(numbers, tensors)
        _require_float_vectors(tensors)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """A model's hyperparameters, by their name without the family's prefix."""

    metadata: Mapping[str, GgufValue]

    @property
    def family(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def value(self, name: str) -> "GgufValue | None":
        return self.metadata.get(f"{self.family}.{name}")

    def whole(self, name: str) -> list[int]:
        """One number, or one a layer; none where the file does not say."""
        value = self.value(name)
        values = value if isinstance(value, list) else [value]
        return [int(one) for one in values if isinstance(one, int)]

    def require(self, name: str, least: int, most: int) -> None:
        for value in self.whole(name):
            if not least <= value <= most:
                raise ValueError(f"{self.family}.{name} is {value}, not between {least} and {most}")

    def first(self, name: str, default: int) -> int:
        return next(iter(self.whole(name)), default)


def _require_one_file(metadata: Mapping[str, GgufValue]) -> None:
    """The other parts are opened by libllama itself, unchecked."""
    count = metadata.get("split.count", 0)
    if isinstance(count, int) and count > 1:
        raise ValueError(f"it is one of {count} parts of a model; merge them first")


def _require_computable(tensors: Mapping[str, TensorInfo]) -> None:
    for tensor in tensors.values():
        if tensor.ggml_type in UNCOMPUTABLE and len(tensor.shape) > 1:
            kind = GGML_TYPES[tensor.ggml_type].name
            raise ValueError(
                f"tensor {tensor.name!r} is stored as {kind}, which cannot be computed"
            )
        if max(tensor.shape, default=1) > _MAX_CONTEXT:
            raise ValueError(f"tensor {tensor.name!r} has the shape {tensor.shape}")


def _require_float_vectors(tensors: Mapping[str, TensorInfo]) -> None:
    """Norms and biases are added and multiplied by kernels that know float32 only."""
    for tensor in tensors.values():
        if len(tensor.shape) < 2 and tensor.ggml_type != FLOAT32:  # noqa: PLR2004  # no matrix
            kind = GGML_TYPES[tensor.ggml_type].name
            raise ValueError(f"tensor {tensor.name!r} is stored as {kind}; vectors must be F32")


def _require_layers(numbers: _Numbers) -> None:
    numbers.require("block_count", 1, _MAX_LAYERS)
    numbers.require("context_length", 1, _MAX_CONTEXT)
    numbers.require("nextn_predict_layers", 0, numbers.first("block_count", _MAX_LAYERS))


def _require_experts(numbers: _Numbers) -> None:
    numbers.require("expert_count", 0, _MAX_EXPERTS)
    experts = numbers.first("expert_count", 0)
    least = 1 if experts else 0
    numbers.require("expert_used_count", least, experts)
    if experts and not numbers.whole("expert_used_count"):
        raise ValueError(f"it has {experts} experts and does not say how many are used")
    groups = numbers.first("expert_group_count", 0)
    numbers.require("expert_group_count", 0, max(0, experts - 1))
    if groups > 1:
        numbers.require("expert_group_used_count", 1, groups - 1)
        if experts % groups or not numbers.whole("expert_group_used_count"):
            raise ValueError(f"{experts} experts do not make {groups} groups")


def _require_attention(numbers: _Numbers) -> None:
    for name in _SIZES:
        numbers.require(name, 1, _MAX_SIZE)
    is_whole = all(numbers.value(name) is not None for name in _ASKED_FOR)
    if is_whole and numbers.value("attention.head_count") is None:
        raise ValueError(f"it does not say {numbers.family}.attention.head_count")
    heads, kv_heads = (
        numbers.whole(name) for name in ("attention.head_count", "attention.head_count_kv")
    )
    if any(many % few for many, few in _per_layer(heads, kv_heads)):
        raise ValueError(f"{heads[0]} heads cannot share {kv_heads[0]} key and value heads")
    _require_head_size(numbers, heads)
    if numbers.value("attention.causal") is False:
        raise ValueError(f"{numbers.family}.attention.causal is false: it is no model of language")
    for name in _FRACTIONS:
        value = numbers.value(name)
        if isinstance(value, float) and not 0 <= value < 1:  # neither is NaN
            raise ValueError(f"{numbers.family}.{name} is {value}")
    base = numbers.value("rope.freq_base")
    if isinstance(base, float) and not (math.isfinite(base) and base > 0):
        raise ValueError(f"{numbers.family}.rope.freq_base is {base}")
    scaling = numbers.value("rope.scaling.type")
    if scaling is not None and scaling not in _ROPE_SCALINGS:
        raise ValueError(f"{numbers.family}.rope.scaling.type is {scaling!r}")


def _per_layer(first: Sequence[int], second: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of two settings of which either may be one for all layers."""
    count = max(len(first), len(second)) if first and second else 0
    return [(first[i % len(first)], second[i % len(second)]) for i in range(count)]


def _require_head_size(numbers: _Numbers, heads: Sequence[int]) -> None:
    hidden = numbers.first("embedding_length", 0)
    usual = hidden // heads[0] if heads else 0
    keys = numbers.first("attention.key_length", usual)
    values = numbers.first("attention.value_length", usual)
    rotated = numbers.first("rope.dimension_count", keys)
    if heads and hidden and not keys:
        raise ValueError(f"{heads[0]} heads have no values left of {hidden}")
    if keys != values:
        raise ValueError(f"keys have {keys} values a head and values {values}")
    least = keys if numbers.family in _WHOLE_ROTATION else 0
    if rotated % 2 or not least <= rotated <= keys:
        raise ValueError(f"{rotated} of {keys} values a head are rotated")


def _require_projections(numbers: _Numbers, tensors: Mapping[str, TensorInfo]) -> None:
    """The heads' matrices have as many rows as the heads have values; some loaders trust that."""
    heads = numbers.whole("attention.head_count")
    kv_heads = numbers.whole("attention.head_count_kv") or heads
    hidden = numbers.first("embedding_length", 0)
    if not heads or not hidden:
        return
    size = numbers.first("attention.key_length", hidden // heads[0])
    for name, tensor in tensors.items():
        layer, _, part = name.removeprefix(_LAYER_PREFIX).partition(".")
        if part not in _PROJECTIONS or not layer.isdecimal() or len(tensor.shape) != 2:  # noqa: PLR2004  # matrices
            continue
        queries, keys, axis = _PROJECTIONS[part]
        many, few = (counts[int(layer) % len(counts)] for counts in (heads, kv_heads))
        wanted = (queries * many + keys * few) * size
        if tensor.shape[axis] != wanted:
            raise ValueError(
                f"tensor {name!r} is {tensor.shape}, which is not for {many} heads over {few} of"
                f" {size} values"
            )


def _require_vocabulary(metadata: Mapping[str, GgufValue]) -> None:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        return
    if not tokens:
        raise ValueError("its vocabulary is empty")
    # a token ends at its first zero byte there, and an empty one gets a name
    seen = {str(token).partition("\0")[0] or f"[EMPTY_{i}]" for i, token in enumerate(tokens)}
    if len(seen) != len(tokens):
        raise ValueError("two tokens of its vocabulary are the same to llama.cpp")
    for name in ("token_type", "scores"):
        values = metadata.get(f"tokenizer.ggml.{name}")
        if isinstance(values, list) and len(values) != len(tokens):
            raise ValueError(f"it has {len(tokens)} tokens and {len(values)} of their {name}")
    if "tokenizer.ggml.precompiled_charsmap" in metadata:  # llama.cpp walks it unchecked
        raise ValueError("it has a table of characters (precompiled_charsmap): not supported")


def _require_pairs(tensors: Mapping[str, TensorInfo]) -> None:
    """Each matrix has its two factors, and they multiply."""
    for name in tensors:
        if name.endswith(_IGNORED_BY_ADAPTERS):
            continue
        target = name.removesuffix(_PAIR[0]).removesuffix(_PAIR[1])
        first, second = (tensors.get(target + suffix) for suffix in _PAIR)
        if name == target or first is None or second is None:
            raise ValueError(f"tensor {name!r} is no half of a LoRA pair")
        match first.shape, second.shape:
            case (one, other), (_, rank) if rank in (one, other):  # of embeddings A is transposed
                continue
        raise ValueError(
            f"{first.shape} and {second.shape} do not fit: the LoRA pair of {target!r}"
        )

"""What would crash libllama is refused by name; what is usual passes."""

import math

import pytest

from fedpt.gguf_checks import require_loadable
from fedpt.gguf_header import GgufValue, TensorInfo

MODEL: dict[str, GgufValue] = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 512,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.rope.dimension_count": 16,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "tokenizer.ggml.tokens": ["a", "b", ""],
    "tokenizer.ggml.token_type": [1, 1, 1],
}
ADAPTER: dict[str, GgufValue] = {"general.type": "adapter", "general.architecture": "llama"}


def tensors(*entries: tuple[str, tuple[int, ...], int]) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, shape, kind, 0, 0) for name, shape, kind in entries}


def test_a_usual_model_passes() -> None:
    require_loadable(MODEL, tensors(("output_norm.weight", (64,), 0), ("w", (64, 64), 8)))


def test_what_a_file_does_not_say_is_not_checked() -> None:
    require_loadable({"general.architecture": "llama"}, {})


def test_a_setting_for_each_layer_passes() -> None:
    require_loadable(MODEL | {"llama.attention.head_count_kv": [2, 4]}, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"llama.block_count": 10**9}, "block_count is 1000000000, not between 1 and 512"),
        ({"llama.block_count": 0}, "block_count is 0"),
        ({"llama.context_length": 0}, "context_length is 0"),
        ({"llama.nextn_predict_layers": 3}, "nextn_predict_layers is 3"),
        ({"llama.attention.head_count": 0}, "head_count is 0"),
        ({"llama.attention.head_count_kv": [2, 0]}, "head_count_kv is 0"),
        ({"llama.attention.head_count_kv": 3}, "4 heads cannot share 3"),
        ({"llama.attention.head_count": 1 << 20}, "1048576 heads have no values left of 64"),
        ({"llama.attention.key_length": 32}, "keys have 32 values a head and values 16"),
        ({"llama.rope.dimension_count": 8}, "8 of 16 values a head are rotated"),
        ({"llama.attention.layer_norm_rms_epsilon": -1.0}, "rms_epsilon is -1.0"),
        ({"llama.attention.layer_norm_rms_epsilon": math.nan}, "rms_epsilon is nan"),
        ({"llama.rope.freq_base": 0.0}, "freq_base is 0.0"),
        ({"llama.rope.scaling.type": "spiral"}, "scaling.type is 'spiral'"),
        ({"llama.attention.causal": False}, "it is no model of language"),
        ({"llama.expert_count": 5000}, "expert_count is 5000"),
        ({"llama.expert_used_count": 2}, "expert_used_count is 2, not between 0 and 0"),
        ({"llama.expert_count": 4}, "does not say how many are used"),
        ({"tokenizer.ggml.tokens": []}, "its vocabulary is empty"),
        ({"tokenizer.ggml.tokens": ["a", "b", "a"]}, "two tokens of its vocabulary are the same"),
        ({"tokenizer.ggml.tokens": ["a", "b", "a\0c"]}, "are the same to llama.cpp"),
        ({"tokenizer.ggml.token_type": [1]}, "3 tokens and 1 of their token_type"),
        ({"tokenizer.ggml.scores": [0.5]}, "3 tokens and 1 of their scores"),
        ({"tokenizer.ggml.precompiled_charsmap": [1]}, "a table of characters"),
        ({"split.count": 2}, "one of 2 parts"),
    ],
)
def test_absurd_metadata_is_refused(changes: dict[str, GgufValue], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_loadable(MODEL | changes, {})


def test_heads_must_be_counted() -> None:
    uncounted = {key: value for key, value in MODEL.items() if not key.endswith("head_count")}
    with pytest.raises(ValueError, match=r"it does not say llama.attention.head_count"):
        require_loadable(uncounted, {})


def test_families_without_attention_may_have_no_heads() -> None:
    require_loadable({"general.architecture": "mamba", "mamba.attention.head_count": 0}, {})


@pytest.mark.parametrize(
    ("name", "shape", "kind", "message"),
    [
        ("w", (4, 4), 26, "'w' is stored as I32, which cannot be computed"),
        ("w", (4, 4), 28, "is stored as F64"),
        ("output_norm.weight", (64,), 1, "is stored as F16; vectors must be F32"),
        ("w", (1, 1 << 40), 0, "has the shape"),
    ],
)
def test_tensors_that_cannot_be_computed_are_refused(
    name: str, shape: tuple[int, ...], kind: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        require_loadable(MODEL, tensors((name, shape, kind)))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("blk.0.attn_q.weight", (64, 64)),
        ("blk.1.attn_v.weight", (32, 64)),
        ("blk.1.attn_qkv.weight", (128, 64)),
        ("blk.0.attn_output.weight", (48, 64)),
    ],
)
def test_matrices_have_room_for_all_heads(name: str, shape: tuple[int, ...]) -> None:
    require_loadable(MODEL, tensors((name, shape, 0)))
    with pytest.raises(ValueError, match="which is not for 8 heads over 4 of 16 values"):
        require_loadable(
            MODEL
            | {
                "llama.attention.head_count": 8,
                "llama.attention.head_count_kv": 4,
                "llama.attention.key_length": 16,
                "llama.attention.value_length": 16,
            },
            tensors((name, shape, 0)),
        )


def test_a_pair_that_multiplies_passes() -> None:
    require_loadable(ADAPTER, tensors(("w.lora_a", (4, 64), 0), ("w.lora_b", (32, 4), 0)))


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("w.lora_a", (4, 64), 0)], "'w.lora_a' is no half of a LoRA pair"),
        ([("w", (4, 64), 0)], "'w' is no half of a LoRA pair"),
        ([("w.lora_a", (4, 64), 0), ("w.lora_b", (32, 8), 0)], "do not fit: the LoRA pair of 'w'"),
        ([("w.lora_a", (4,), 0), ("w.lora_b", (32, 4), 0)], "do not fit"),
        ([("w.lora_a", (4, 64), 24), ("w.lora_b", (32, 4), 0)], "stored as I8"),
    ],
)
def test_a_pair_that_does_not_multiply_is_refused(
    entries: list[tuple[str, tuple[int, ...], int]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        require_loadable(ADAPTER, tensors(*entries))

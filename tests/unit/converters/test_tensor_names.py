"""Names and shapes, from the tables and from headers."""

from dataclasses import replace

import pytest

from converters.tensor_names import (
    ARCHITECTURES,
    gguf_names,
    linear_shapes,
    rotary_heads,
)
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile


def test_every_module_has_its_own_name() -> None:
    names = gguf_names(ARCHITECTURES["llama"], 3)
    assert names["model.layers.2.self_attn.q_proj"] == "blk.2.attn_q"
    assert len(set(names.values())) == len(names) == 3 + 3 * 9


def test_only_queries_and_keys_are_reordered() -> None:
    architecture = ARCHITECTURES["llama"]
    metadata = {"llama.attention.head_count": 4, "llama.attention.head_count_kv": 2}
    heads = {
        name: rotary_heads(architecture, metadata, name) for name in gguf_names(architecture, 1)
    }
    assert {name: count for name, count in heads.items() if count} == {
        "model.layers.0.self_attn.q_proj": 4,
        "model.layers.0.self_attn.k_proj": 2,
    }


def test_keys_have_as_many_heads_as_queries_where_the_file_does_not_say() -> None:
    metadata = {"llama.attention.head_count": 4}
    module = "model.layers.0.self_attn.k_proj"
    assert rotary_heads(ARCHITECTURES["llama"], metadata, module) == 4


def test_linear_shapes_are_those_of_the_model(base: GgufFile) -> None:
    shapes = linear_shapes(base)
    assert len(shapes) == 2 * 7
    assert shapes["model.layers.1.self_attn.k_proj"] == (32, 64)
    assert shapes["model.layers.0.mlp.down_proj"] == (64, 128)


def test_a_missing_layer_is_named(base: GgufFile) -> None:
    tensors = {name: info for name, info in base.tensors.items() if name != "blk.1.attn_q.weight"}
    with pytest.raises(ModelFileError, match=r"blk\.1\.attn_q\.weight"):
        linear_shapes(replace(base, tensors=tensors))


def test_more_layers_than_tensors_are_refused(base: GgufFile) -> None:
    metadata = {**base.metadata, "llama.block_count": 2**32 - 1}
    with pytest.raises(ModelFileError, match="layers in"):
        linear_shapes(replace(base, metadata=metadata))

"""Names and the rotary order, without any file."""

from dataclasses import replace
from pathlib import Path

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.tensor_names import (
    ARCHITECTURES,
    architecture_named,
    architecture_of,
    from_rotary_order,
    gguf_names,
    linear_shapes,
    rotary_heads,
    to_rotary_order,
)
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile


@given(
    heads=st.integers(1, 5),
    pairs=st.integers(1, 5),
    rest=hnp.array_shapes(min_dims=0, max_dims=1, max_side=4),
)
def test_rotary_order_has_an_inverse(heads: int, pairs: int, rest: tuple[int, ...]) -> None:
    rows = np.arange(heads * pairs * 2 * int(np.prod(rest))).reshape(heads * pairs * 2, *rest)
    assert np.array_equal(from_rotary_order(to_rotary_order(rows, heads), heads), rows)
    assert np.array_equal(to_rotary_order(from_rotary_order(rows, heads), heads), rows)


def test_rotary_order_puts_the_halves_of_each_head_side_by_side() -> None:
    assert to_rotary_order(np.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_rows_that_are_no_pairs_per_head_are_refused() -> None:
    with pytest.raises(ModelFileError, match="does not fit 4 rotary heads"):
        to_rotary_order(np.zeros((12, 3)), 4)


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


def test_an_unknown_family_is_named_with_those_that_are_supported() -> None:
    with pytest.raises(ModelFileError, match=r"'mamba'.*supported: llama"):
        architecture_of(GgufFile(Path("x.gguf"), {"general.architecture": "mamba"}, {}))
    with pytest.raises(ModelFileError, match=r"'MambaForCausalLM'.*supported: LlamaForCausalLM"):
        architecture_named("MambaForCausalLM")

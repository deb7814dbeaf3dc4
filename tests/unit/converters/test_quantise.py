"""Quantising through libllama: what is foreseen is what is written, and what cannot be is told."""

from pathlib import Path

import numpy as np
import pytest

from converters.quantise import (
    Adjustments,
    foresee,
    kinds,
    parse_overrides,
    quantise,
    require_kind,
)
from fedpt.errors import ModelFileError, UsageError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from fedpt.gguf_types import GGML_TYPES
from fedpt.ids import Sha256

pytestmark = pytest.mark.llama


def stored_types(path: Path) -> dict[str, str]:
    tensors = read_gguf(path).tensors
    return {name: GGML_TYPES[tensor.ggml_type].name for name, tensor in tensors.items()}


@pytest.mark.parametrize("kind", ["F16", "Q4_0", "Q4_K_M", "Q6_K", "IQ4_NL", "TQ1_0", "MXFP4_MOE"])
def test_what_is_foreseen_is_written(base: GgufFile, tmp_path: Path, kind: str) -> None:
    forecast = foresee(base, kind)
    quantise(base.path, tmp_path / "q.gguf", kind, weights=Sha256("a" * 64))
    assert stored_types(tmp_path / "q.gguf") == forecast.types
    assert abs((tmp_path / "q.gguf").stat().st_size - forecast.size_bytes) < 512
    assert weights_sha256(read_gguf(tmp_path / "q.gguf")) == "a" * 64


def test_rows_that_are_no_whole_blocks_are_foreseen(base: GgufFile) -> None:
    fallbacks = {one.tensor: one for one in foresee(base, "Q4_K_M").fallbacks}
    first = fallbacks["blk.0.attn_q.weight"]
    assert (first.wanted, first.stored, first.columns) == ("Q4_K", "Q5_0", 64)
    assert fallbacks["token_embd.weight"].stored == "Q8_0"
    assert len(fallbacks) == 15


def test_short_blocks_fall_back_for_the_head_only(base: GgufFile) -> None:
    assert [one.tensor for one in foresee(base, "Q4_0").fallbacks] == ["token_embd.weight"]
    assert foresee(base, "Q8_0").fallbacks == ()


def test_a_kind_that_needs_an_importance_matrix_says_so(base: GgufFile) -> None:
    assert foresee(base, "Q2_K_S").needs_importance == ""  # all its tensors fall back to Q4_0
    assert foresee(base, "Q4_0").needs_importance == ""


def test_overrides_choose_the_type_of_some_tensors(base: GgufFile, tmp_path: Path) -> None:
    overrides = parse_overrides(["attn_v=q8_0", "ffn_.*=Q5_1", "blk=Q4_1"], "Q4_0")
    adjustments = Adjustments(overrides)
    quantise(
        base.path, tmp_path / "q.gguf", "Q4_0", weights=Sha256("a" * 64), adjustments=adjustments
    )
    types = stored_types(tmp_path / "q.gguf")
    assert types == foresee(base, "Q4_0", adjustments).types
    assert types["blk.1.attn_v.weight"] == "Q8_0"
    assert types["blk.0.ffn_down.weight"] == "Q5_1"
    assert types["blk.0.attn_q.weight"] == "Q4_1"


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("attn_v", "Q4_0", "is not of the form REGEX=TYPE"),
        ("=Q8_0", "Q4_0", "is not of the form REGEX=TYPE"),
        ("attn_v=Q99", "Q4_0", "no such tensor type: 'Q99'; choose from F32"),
        ("attn_v=I32", "Q4_0", "no such tensor type"),
        ("attn_(=Q8_0", "Q4_0", "is no expression"),
        ("attn_v=Q8_0", "F16", "F16 stores all matrices alike"),
    ],
)
def test_overrides_that_cannot_be_are_refused(text: str, kind: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_overrides([text], kind)


def test_an_override_must_name_a_tensor(base: GgufFile) -> None:
    with pytest.raises(UsageError, match=r"no tensor of tiny.gguf matches 'attn_x'"):
        foresee(base, "Q4_0", Adjustments((("attn_x", "Q8_0"),)))


def test_unknown_kinds_are_told_with_those_that_are_known() -> None:
    with pytest.raises(UsageError, match=r"no such type: 'Q9'; choose from F32, F16, Q4_0"):
        require_kind("Q9")
    assert {"F32", "Q4_K_M", "IQ1_S", "BF16"} <= kinds().keys()


def test_libllamas_reason_is_told(base: GgufFile) -> None:
    with pytest.raises(ModelFileError, match="to Q1_0: no tensor type fallback is defined"):
        foresee(base, "Q1_0")


def test_importance_changes_what_is_written(base: GgufFile, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    importance = {
        name: rng.random(tensor.shape[-1]).astype(np.float32) ** 4 + np.float32(1e-6)
        for name, tensor in base.tensors.items()
        if "attn_" in name and len(tensor.shape) > 1
    }
    contents = []
    for adjustments in (Adjustments(), Adjustments(importance=importance)):
        target = tmp_path / "q.gguf"
        quantise(base.path, target, "IQ4_NL", weights=Sha256("a" * 64), adjustments=adjustments)
        tensor = read_gguf(target).tensors["blk.0.attn_q.weight"]
        contents.append(target.read_bytes()[tensor.offset : tensor.offset + tensor.size_bytes])
    assert contents[0] != contents[1]
    assert read_gguf(target).metadata["quantize.imatrix.entries_count"] == len(importance)

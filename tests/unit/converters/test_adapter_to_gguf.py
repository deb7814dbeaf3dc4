"""Adapters to GGUF, judged by the logits of torch's base with the same adapter."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from converters.adapter_to_gguf import convert_adapter
from converters.model_to_gguf import convert_model
from fedpt.adapter_file import require_adapter_fits
from fedpt.adapters import Adapter, read_peft_folder
from fedpt.errors import AdapterError, WrongBaseError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from fedpt.vocabulary import vocabulary_of
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_models import load_tuned, make_tiny_adapter, make_tiny_llama, torch_logits

pytestmark = pytest.mark.llama

IDS = list(range(3, 60, 2))


@pytest.mark.parametrize(("heads", "kv_heads", "tied"), [(4, 2, True), (4, 4, False)])
def test_llama_cpp_computes_the_same_logits_with_the_adapter(
    tmp_path: Path, heads: int, kv_heads: int, tied: bool
) -> None:
    folder = make_tiny_llama(tmp_path / "m", heads=heads, kv_heads=kv_heads, tied=tied)
    make_tiny_adapter(tmp_path / "adapter", folder)
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    base = read_gguf(tmp_path / "m.gguf")
    adapter = read_peft_folder(tmp_path / "adapter", base_weights=weights_sha256(base))
    convert_adapter(adapter, base, tmp_path / "adapter.gguf")
    theirs = torch_logits(load_tuned(folder, tmp_path / "adapter"), IDS)
    ours = llama_logits(base.path, IDS, tmp_path / "adapter.gguf")
    assert np.abs(theirs - llama_logits(base.path, IDS)).max() > 1  # it does change something
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_the_adapter_fits_every_quantisation_of_its_base(
    gguf: Path, adapter: Adapter, tmp_path: Path
) -> None:
    convert_model(gguf, tmp_path / "q8.gguf", kind="Q8_0")
    base = read_gguf(tmp_path / "q8.gguf")
    convert_adapter(adapter, base, tmp_path / "adapter.gguf")
    require_adapter_fits(tmp_path / "adapter.gguf", base)


def test_the_files_name_their_weights_and_their_vocabulary(
    base: GgufFile, adapter_gguf: Path
) -> None:
    stated = read_gguf(adapter_gguf).metadata
    assert stated["fedpt.base.weights.sha256"] == weights_sha256(base)
    assert stated["fedpt.vocabulary.sha256"] == vocabulary_of(base).sha256
    assert base.metadata["fedpt.vocabulary.sha256"] == vocabulary_of(base).sha256


def test_factors_can_be_stored_in_half_precision(
    adapter: Adapter, base: GgufFile, adapter_gguf: Path, tmp_path: Path
) -> None:
    convert_adapter(adapter, base, tmp_path / "half.gguf", kind="F16")
    half = llama_logits(base.path, IDS, tmp_path / "half.gguf")
    np.testing.assert_allclose(half, llama_logits(base.path, IDS, adapter_gguf), atol=0.05)
    assert (tmp_path / "half.gguf").stat().st_size < 0.7 * adapter_gguf.stat().st_size


def test_an_adapter_of_another_base_is_refused(
    adapter: Adapter, base: GgufFile, tmp_path: Path
) -> None:
    other = msgspec.structs.replace(adapter.manifest, base_weights="0" * 64)
    with pytest.raises(WrongBaseError, match="was trained on the base model 000000000000"):
        convert_adapter(replace(adapter, manifest=other), base, tmp_path / "a.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_the_base_has_not_is_named(
    adapter: Adapter, base: GgufFile, tmp_path: Path
) -> None:
    tensors = {name.replace("layers.1.", "layers.9."): t for name, t in adapter.tensors.items()}
    with pytest.raises(AdapterError, match=r"no linear layer 'model\.layers\.9\."):
        convert_adapter(replace(adapter, tensors=tensors), base, tmp_path / "a.gguf")


def test_factors_of_another_shape_are_refused(
    adapter: Adapter, base: GgufFile, tmp_path: Path
) -> None:
    tensors = {
        name: t[:, :-2] if "0.mlp.up_proj.lora_A" in name else t
        for name, t in adapter.tensors.items()
    }
    with pytest.raises(AdapterError, match=r"up_proj: A \(4, 62\) and B \(128, 4\) do not fit"):
        convert_adapter(replace(adapter, tensors=tensors), base, tmp_path / "a.gguf")

"""Every family, judged by torch: the same logits in llama.cpp, alone and with an adapter."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from converters.adapter_to_gguf import convert_adapter
from converters.architectures.known import ARCHITECTURES, architecture_named, architecture_of
from converters.gguf_to_torch import load_causal_lm
from fedpt.adapters import read_peft_folder
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_families import FAMILIES, with_llama_cpps_gelu
from tests.fakes.tiny_models import load_tuned, make_tiny_adapter, torch_logits

pytestmark = pytest.mark.llama

Family = Callable[[str], tuple[Path, Path]]
"""A folder and its GGUF file; see conftest."""

IDS = [5, *range(3, 60, 2), 300, 7, 7, 383]
"""Longer than the sliding windows of the tiny models that have some."""

TOLERANCE = 1e-3
"""float32 on both sides agrees to 1e-5; llama.cpp looks GELU up in a table of half precision."""


@pytest.mark.parametrize("name", FAMILIES)
def test_llama_cpp_computes_the_same_logits_alone_and_with_an_adapter(
    family: Family, tmp_path: Path, name: str
) -> None:
    folder, gguf = family(name)
    make_tiny_adapter(tmp_path / "a", folder, targets="all-linear")
    base = read_gguf(gguf)
    adapter = read_peft_folder(tmp_path / "a", base_weights=weights_sha256(base))
    convert_adapter(adapter, base, tmp_path / "a.gguf")
    torch_base = torch_logits(AutoModelForCausalLM.from_pretrained(folder).eval(), IDS)
    torch_tuned = torch_logits(load_tuned(folder, tmp_path / "a"), IDS)
    alone = np.abs(llama_logits(base.path, IDS) - torch_base).max()
    tuned = np.abs(llama_logits(base.path, IDS, tmp_path / "a.gguf") - torch_tuned).max()
    # the table of docs/converting.md: pytest -s
    print(f"{name:40} {alone:.1e} {tuned:.1e}")  # noqa: T201
    assert torch_base.std() > 0.4
    assert np.abs(torch_tuned - torch_base).max() > 0.1  # the adapter does change something
    assert max(alone, tuned) < TOLERANCE


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.startswith(("gemma", "gpt"))])
def test_what_differs_by_more_than_float32_does_is_llama_cpps_table_of_gelu(
    family: Family, name: str
) -> None:
    folder, gguf = family(name)
    looked_up = with_llama_cpps_gelu(AutoModelForCausalLM.from_pretrained(folder).eval())
    difference = np.abs(llama_logits(gguf, IDS) - torch_logits(looked_up, IDS))
    # not the largest: a value at the edge between two entries may take the other one
    assert np.median(difference) < 2e-5


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_loaded_into_torch_computes_what_the_original_does(
    family: Family, name: str
) -> None:
    folder, gguf = family(name)
    loaded = torch_logits(load_causal_lm(gguf), IDS)
    original = torch_logits(AutoModelForCausalLM.from_pretrained(folder).eval(), IDS)
    np.testing.assert_allclose(loaded, original, atol=2e-5)  # 1e-5 for norms that lost a bit


def test_an_unknown_family_is_named_with_those_that_are_supported() -> None:
    with pytest.raises(ModelFileError, match=r"'mamba'.*supported: gemma3, gpt2, llama"):
        architecture_of(GgufFile(Path("x.gguf"), {"general.architecture": "mamba"}, {}))
    with pytest.raises(ModelFileError, match=r"'MambaForCausalLM'.*supported: LlamaForCausalLM"):
        architecture_named("MambaForCausalLM")


def test_of_two_families_with_one_name_in_gguf_the_first_is_read_back() -> None:
    assert ARCHITECTURES["llama"].transformers_name == "LlamaForCausalLM"
    assert architecture_named("MistralForCausalLM").gguf_name == "llama"

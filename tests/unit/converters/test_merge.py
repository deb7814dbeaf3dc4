"""A base and its adapter as one model, judged by the logits of the two side by side."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoModelForCausalLM

from converters.adapter_to_gguf import convert_adapter
from converters.merge import merged, open_adapter
from converters.model_header import header_of
from converters.model_source import SourceModel, open_source
from converters.model_to_gguf import convert_model, write_model
from converters.model_to_transformers import write_folder
from fedpt.errors import AdapterError, WrongBaseError
from fedpt.gguf_file import read_gguf, weights_sha256
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_families import make_tiny_family
from tests.fakes.tiny_models import load_tuned, make_tiny_adapter, make_tiny_llama, torch_logits

pytestmark = pytest.mark.llama

IDS = list(range(3, 60, 2))


def merge(base: Path, adapter: Path) -> SourceModel:
    model = open_source(base, name="base")
    return merged(model, open_adapter(adapter, model))


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2"])
def test_a_merged_model_answers_as_base_and_adapter_side_by_side(
    family: Callable[[str], tuple[Path, Path]], tmp_path: Path, name: str
) -> None:
    folder, gguf = family(name)
    make_tiny_adapter(tmp_path / "a", folder, targets="all-linear")
    model = open_source(gguf, name="m")
    adapter = open_adapter(tmp_path / "a", model)
    convert_adapter(adapter, header_of(model), tmp_path / "a.gguf")
    write_model(merged(model, adapter), tmp_path / "whole.gguf", kind="F32")
    at_run_time = llama_logits(gguf, IDS, tmp_path / "a.gguf")
    assert np.abs(at_run_time - llama_logits(gguf, IDS)).max() > 0.1
    np.testing.assert_allclose(llama_logits(tmp_path / "whole.gguf", IDS), at_run_time, atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2, untied, own inner size"])
def test_folders_are_merged_as_peft_does_it_embedding_and_head_included(
    tmp_path: Path, name: str
) -> None:
    folder = make_tiny_family(tmp_path / "m", name)
    targets = ["wte", "c_attn", "c_proj", "lm_head"]
    if name == "llama":
        targets = ["embed_tokens", "q_proj", "down_proj", "lm_head"]
    make_tiny_adapter(tmp_path / "a", folder, targets=targets)
    write_folder(merge(folder, tmp_path / "a"), tmp_path / "whole", kind="F32")
    ours = AutoModelForCausalLM.from_pretrained(tmp_path / "whole").eval()
    theirs = load_tuned(folder, tmp_path / "a")
    np.testing.assert_allclose(torch_logits(ours, IDS), torch_logits(theirs, IDS), atol=1e-4)
    assert (tmp_path / "whole/tokenizer.json").read_text() == (
        folder / "tokenizer.json"
    ).read_text()


def test_base_and_adapter_may_each_be_a_folder_or_a_file(
    model_folder: Path, gguf: Path, adapter_folder: Path, adapter_gguf: Path
) -> None:
    mixed = merge(model_folder, adapter_gguf), merge(gguf, adapter_folder)
    assert mixed[0].weights == mixed[1].weights
    key = "model.layers.1.self_attn.k_proj.weight"
    values = [one.tensors[key].load() for one in mixed]
    np.testing.assert_array_equal(*values)
    assert not np.array_equal(values[0], open_source(gguf, name="m").tensors[key].load())


def test_a_merged_model_is_known_to_be_another(gguf: Path, adapter_gguf: Path) -> None:
    whole = merge(gguf, adapter_gguf)
    assert whole.weights != weights_sha256(read_gguf(gguf))
    with pytest.raises(WrongBaseError):
        open_adapter(adapter_gguf, whole)


def test_a_quantised_base_gives_the_same_identity(
    gguf: Path, adapter_gguf: Path, tmp_path: Path
) -> None:
    convert_model(gguf, tmp_path / "q.gguf", kind="Q8_0")
    assert merge(tmp_path / "q.gguf", adapter_gguf).weights == merge(gguf, adapter_gguf).weights


def test_a_merged_model_can_be_quantised(gguf: Path, adapter_gguf: Path, tmp_path: Path) -> None:
    write_model(merge(gguf, adapter_gguf), tmp_path / "q.gguf", kind="Q4_0")
    at_run_time = llama_logits(gguf, IDS, adapter_gguf)
    # logits spread by 1.2; measured 0.36, what Q4_0 costs so small a model
    assert np.abs(llama_logits(tmp_path / "q.gguf", IDS) - at_run_time).mean() < 0.6


def test_an_adapter_of_other_shapes_is_refused(adapter_folder: Path, tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "m", hidden=32)
    adapter = make_tiny_adapter(tmp_path / "a", folder)
    other = make_tiny_llama(tmp_path / "other", hidden=64)
    with pytest.raises(AdapterError, match="the factors do not fit"):
        merge(other, adapter)

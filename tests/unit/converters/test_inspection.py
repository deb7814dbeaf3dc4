"""What files and folders are, from their headers."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from converters.cli import app
from converters.gguf_output import PlannedTensor, write_gguf
from converters.inspection import Inspection, inspect
from converters.quantise import quantise
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, weights_sha256
from fedpt.vocabulary import vocabulary_of

pytestmark = pytest.mark.llama


@pytest.fixture(scope="module")
def model(gguf: Path) -> Inspection:
    return inspect(gguf)


def test_a_model_is_told_in_numbers(model: Inspection, base: GgufFile) -> None:
    facts = dict(model.facts)
    assert facts["what"] == "GGUF model"
    assert (facts["architecture"], facts["type"]) == ("llama", "F32")
    assert (facts["layers"], facts["hidden_size"], facts["context"]) == (2, 64, 512)
    assert (facts["heads"], facts["key_value_heads"]) == (4, 2)
    assert facts["tokenizer"] == "gpt2 smollm"
    assert facts["vocabulary"] == 384
    assert facts["chat_template"].startswith("{% for message in messages %}")
    assert facts["weights"] == weights_sha256(base)
    assert facts["vocabulary_sha256"] == vocabulary_of(base).sha256
    assert model.warnings == ()


def test_types_are_counted_with_their_bytes(model: Inspection, base: GgufFile) -> None:
    assert model.types["F32"].tensors == len(base.tensors)
    assert model.types["F32"].size_bytes == sum(one.size_bytes for one in base.tensors.values())


def test_fallbacks_of_long_blocks_are_warned_of(base: GgufFile, tmp_path: Path) -> None:
    quantise(base.path, tmp_path / "q.gguf", "Q4_K_M", weights=weights_sha256(base))
    found = inspect(tmp_path / "q.gguf")
    assert found.facts["type"] == "Q4_K_M"
    assert "15 of 15 matrices are Q5_0, Q8_0 instead of Q4_K_M's types" in found.warnings[0]
    assert next(iter(found.types)) == "Q5_0"


def test_what_is_missing_or_unknown_is_warned_of(tmp_path: Path, base: GgufFile) -> None:
    import numpy as np

    tensor = PlannedTensor("w", (2, 2), "F32", lambda: np.zeros((2, 2), np.float32))
    write_gguf(tmp_path / "m.gguf", {"general.architecture": "llama", "vendor.x": 1}, [tensor])
    text = inspect(tmp_path / "m.gguf").as_text()
    for warning in ("no chat template", "no tokenizer", "unknown keys: vendor.x", "is not stated"):
        assert warning in text


def test_an_adapter_file_names_its_base(adapter_gguf: Path, base: GgufFile) -> None:
    facts = inspect(adapter_gguf).facts
    assert facts["what"] == "GGUF adapter (LoRA)"
    assert (facts["rank"], facts["alpha"], facts["changes"]) == (4, 8.0, "14 matrices")
    assert facts["base"] == weights_sha256(base)


def test_a_transformers_folder_is_told(model_folder: Path) -> None:
    found = inspect(model_folder)
    assert found.facts["architecture"] == "LlamaForCausalLM"
    assert (found.facts["layers"], found.facts["vocabulary"]) == (2, 384)
    assert found.types["F32"].tensors == 20
    assert found.facts["chat_template"].startswith("{% for")
    assert found.warnings == ()


def test_of_several_chat_templates_the_default_is_told(model_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(model_folder, tmp_path / "m")
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.exists() else {}
    named = [{"name": "rag", "template": "other"}, {"name": "default", "template": "usual"}]
    path.write_text(json.dumps(config | {"chat_template": named}))
    found = inspect(folder)
    assert found.facts["chat_template"] == "usual"
    assert found.warnings == ()


def test_an_adapter_folder_is_told_with_what_llama_cpp_cannot_do(
    adapter_folder: Path, tmp_path: Path
) -> None:
    facts = inspect(adapter_folder).facts
    assert (facts["rank"], facts["alpha"]) == (4, 8)
    assert "q_proj" in facts["changes"]
    copy = shutil.copytree(adapter_folder, tmp_path / "copy")
    config = json.loads((copy / "adapter_config.json").read_text())
    (copy / "adapter_config.json").write_text(json.dumps(config | {"use_dora": True}))
    (copy / "adapter_model.safetensors").unlink()
    warnings = inspect(copy).warnings
    assert warnings == (
        "it has no adapter_model.safetensors",
        "DoRA: llama.cpp cannot compute it",
    )


def test_what_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"neither config.json nor adapter_config.json"):
        inspect(tmp_path)
    with pytest.raises(ModelFileError, match="no such model file"):
        inspect(tmp_path / "none.gguf")


def test_the_command_says_it_in_one_screen_or_as_json(gguf: Path) -> None:
    text = CliRunner().invoke(app, ["inspect", str(gguf)]).stdout
    assert len(text.splitlines()) < 24
    assert "parameters" in text
    content = json.loads(CliRunner().invoke(app, ["inspect", str(gguf), "--json"]).stdout)
    assert content["types"]["F32"]["tensors"] == 20
    assert content["warnings"] == []

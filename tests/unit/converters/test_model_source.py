"""Sources that contradict themselves: one line each, before anything is written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from converters.model_source import open_source
from converters.model_to_gguf import convert_model
from fedpt.errors import ModelFileError
from fedpt.gguf_file import read_gguf, weights_sha256
from tests.fakes.tiny_families import make_tiny_family

INDEX = "model.safetensors.index.json"


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    return shutil.copytree(model_folder, tmp_path / "copy")


@pytest.fixture
def shards(copy: Path) -> Path:
    """The same in several files with an index."""
    AutoModelForCausalLM.from_pretrained(copy).save_pretrained(copy, max_shard_size="100KB")
    (copy / "model.safetensors").unlink()
    return copy


def change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(folder: Path, edit: Callable[[dict[str, np.ndarray]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file({key: np.ascontiguousarray(one) for key, one in weights.items()},
              folder / "model.safetensors")  # fmt: skip


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ModelFileError, match=message) as caught:
        open_source(folder, name="m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 96}, r"embed_tokens\.weight is \(384, 64\), .* \(384, 96\)"),
        ({"intermediate_size": 96}, r"mlp\.gate_proj\.weight is .* \(96, 64\) \(inner x hidden\)"),
        ({"num_key_value_heads": 4}, r"k_proj\.weight is \(32, 64\), .* \(64, 64\)"),
        ({"head_dim": 8}, r"q_proj\.weight is \(64, 64\), .* \(32, 64\)"),
        ({"vocab_size": 400}, r"vocab_size is 400, but model\.embed_tokens\.weight has 384 rows"),
        ({"num_hidden_layers": 3}, r"model\.layers\.2\.input_layernorm\.weight is missing"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0, a count was expected"),
        ({"attention_bias": True}, r"q_proj\.bias is missing"),
        ({"tie_word_embeddings": False}, r"lm_head\.weight is missing"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rope_type 'dynamic' is not supported"),
        (
            {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
            "rope low_freq_factor is None",
        ),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    ],
)
def test_a_configuration_that_contradicts_the_tensors_is_refused(
    copy: Path, changes: dict[str, object], message: str
) -> None:
    change(copy / "config.json", **changes)
    refused(copy, message)


def test_a_bias_that_the_configuration_does_not_have_is_refused(copy: Path) -> None:
    key = "model.layers.0.self_attn.q_proj.bias"
    change_weights(copy, lambda weights: weights.update({key: np.zeros(64, np.float32)}))
    refused(copy, r"q_proj\.bias' is no part of a LlamaForCausalLM with this config\.json")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("qwen2", {"head_dim": 32}, "head_dim 32 is not hidden size 64 by 4 heads"),
        ("gemma3", {"query_pre_attn_scalar": 64}, "query_pre_attn_scalar is 64; .* a head, 32"),
        ("gemma3", {"sliding_window": None}, "sliding_window is null, but some layers slide"),
        ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping 30.0 is not"),
        ("gemma3", {"layer_types": ["sliding_attention"]}, "layer_types .* not known here"),
        ("gpt2", {"activation_function": "relu"}, "activation_function 'relu' is not supported"),
        ("phi3, long rope, tied", {"rope_parameters": {
            "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0], "long_factor": [1.0],
            "original_max_position_embeddings": 64,
        }}, "rope long_factor is no list of 8 numbers"),
    ],
)  # fmt: skip
def test_what_llama_cpp_would_compute_otherwise_is_refused(
    tmp_path: Path, name: str, changes: dict[str, object], message: str
) -> None:
    folder = make_tiny_family(tmp_path / "m", name)
    change(folder / "config.json", **changes)
    refused(folder, message)


def test_a_missing_index_entry_is_named(shards: Path) -> None:
    index = json.loads((shards / INDEX).read_text())
    files = index["weight_map"]
    del files["model.layers.1.mlp.up_proj.weight"]
    kept = set(files.values())
    (shards / INDEX).write_text(json.dumps(index))
    # the tensor is still found if its file is listed for another one
    lost = {path.name for path in shards.glob("*.safetensors")} - kept
    if lost:
        refused(shards, r"tensor model\.layers\.1\.mlp\.up_proj\.weight is missing")
    files["model.layers.1.mlp.up_proj.weight"] = sorted(kept)[0]
    (shards / INDEX).write_text(json.dumps(index))
    refused(shards, r"has no tensor 'model\.layers\.1\.mlp\.up_proj\.weight', its index says")


def test_a_truncated_shard_is_named(shards: Path) -> None:
    last = sorted(shards.glob("*.safetensors"))[-1]
    last.write_bytes(last.read_bytes()[:-10])
    refused(shards, rf"{last.name} is truncated: \d+ of \d+ bytes; fetch it again")


def test_an_index_that_lists_nothing_is_refused(shards: Path) -> None:
    (shards / INDEX).write_text('{"weight_map": {}}')
    refused(shards, "has no weight_map")


def test_a_tensor_in_two_files_is_refused(shards: Path) -> None:
    first, second = sorted(shards.glob("*.safetensors"))[:2]
    save_file(load_file(first) | load_file(second), second)
    refused(shards, "is in another file too")


def test_pickled_weights_are_never_read(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refused(copy, r"as pickle \(\.bin\), which can run code and is never read; save it as safet")


def test_code_beside_a_model_is_never_run(copy: Path, tmp_path: Path) -> None:
    change(copy / "config.json", auto_map={"AutoModelForCausalLM": "evil.Model"})
    (copy / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    convert_model(copy, tmp_path / "m.gguf", kind="F32")
    assert not (tmp_path / "ran").exists()


def test_a_vocabulary_larger_than_the_embedding_is_refused(copy: Path, tmp_path: Path) -> None:
    change_weights(
        copy,
        lambda weights: weights.update(
            {"model.embed_tokens.weight": weights["model.embed_tokens.weight"][:100]}
        ),
    )
    change(copy / "config.json", vocab_size=100)
    with pytest.raises(ModelFileError, match=r"100 rows: the vocabulary is larger than the embed"):
        convert_model(copy, tmp_path / "m.gguf", kind="F32")
    assert not (tmp_path / "m.gguf").exists()


def test_the_hubs_gpt2_has_shorter_names_and_buffers(tmp_path: Path) -> None:
    folder = make_tiny_family(tmp_path / "m", "gpt2")
    convert_model(folder, tmp_path / "one.gguf", kind="F32")
    weights = load_file(folder / "model.safetensors")
    short = {key.removeprefix("transformer."): one for key, one in weights.items()}
    short["h.0.attn.bias"] = np.ones((1, 1, 8, 8), np.float32)
    save_file(short, folder / "model.safetensors")
    convert_model(folder, tmp_path / "two.gguf", kind="F32")
    one, two = (weights_sha256(read_gguf(tmp_path / f"{n}.gguf")) for n in ("one", "two"))
    assert one == two


def test_an_older_configuration_says_the_same_in_other_words(copy: Path, tmp_path: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    theta = config.pop("rope_parameters")["rope_theta"]
    config |= {"rope_theta": theta, "rope_scaling": {"type": "linear", "factor": 2.0}}
    for key in ("head_dim", "attention_bias", "mlp_bias"):
        config.pop(key, None)
    (copy / "config.json").write_text(json.dumps(config))
    convert_model(copy, tmp_path / "m.gguf", kind="F32")
    metadata = read_gguf(tmp_path / "m.gguf").metadata
    assert metadata["llama.rope.scaling.type"] == "linear"
    assert metadata["llama.rope.scaling.factor"] == 2.0
    assert metadata["llama.attention.key_length"] == 16


def test_a_window_that_llama_cpp_does_not_slide_limits_the_context(tmp_path: Path) -> None:
    folder = make_tiny_family(tmp_path / "m", "mistral")
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    assert read_gguf(tmp_path / "m.gguf").metadata["llama.context_length"] == 64
    change(folder / "config.json", sliding_window=None)
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    assert read_gguf(tmp_path / "m.gguf").metadata["llama.context_length"] == 512

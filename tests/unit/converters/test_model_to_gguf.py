"""Models to GGUF, judged by the logits that llama.cpp then gives."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from converters.gguf_to_torch import load_causal_lm
from converters.model_to_gguf import convert_model
from fedpt.errors import FedptError, ModelFileError, StorageError, UsageError
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.progress import Progress
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_models import make_tiny_llama, torch_logits

pytestmark = pytest.mark.llama

PROMPTS = ([5], list(range(3, 60, 2)), [1, 300, 7, 7, 7, 299, 2, 1, 44, 130, 210, 383])


def transformers_model(folder: Path) -> torch.nn.Module:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.fixture
def copy(model_folder: Path, tmp_path: Path) -> Path:
    """A folder that a test may damage."""
    return shutil.copytree(model_folder, tmp_path / "copy")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("heads", "kv_heads", "tied"), [(4, 2, True), (4, 4, False), (8, 1, True), (2, 2, True)]
)
def test_llama_cpp_computes_the_same_logits(
    tmp_path: Path, heads: int, kv_heads: int, tied: bool
) -> None:
    folder = make_tiny_llama(tmp_path / "m", heads=heads, kv_heads=kv_heads, tied=tied)
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    model = transformers_model(folder)
    for ids in PROMPTS:
        ours, theirs = llama_logits(tmp_path / "m.gguf", ids), torch_logits(model, ids)
        assert theirs.std() > 0.5
        # float32 on both sides, summed in another order
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_biases_and_a_stated_head_size_are_converted(copy: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy, attention_bias=True)
    for name, weight in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight)
    model.save_pretrained(copy)
    convert_model(copy, tmp_path / "m.gguf", kind="F32")
    theirs = torch_logits(model.eval(), PROMPTS[1])
    np.testing.assert_allclose(llama_logits(tmp_path / "m.gguf", PROMPTS[1]), theirs, atol=1e-4)
    loaded = load_causal_lm(tmp_path / "m.gguf")
    np.testing.assert_array_equal(torch_logits(loaded, PROMPTS[1]), theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_sources_keep_their_exact_values(
    copy: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy, dtype=dtype)
    model.save_pretrained(copy)
    convert_model(copy, tmp_path / "m.gguf", kind="F32")
    loaded = load_causal_lm(tmp_path / "m.gguf").state_dict()
    assert all(torch.equal(loaded[name], w.float()) for name, w in model.state_dict().items())


def test_shards_are_read_as_one_model(copy: Path, gguf: Path, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(copy).save_pretrained(copy, max_shard_size="100KB")
    (copy / "model.safetensors").unlink()
    convert_model(copy, tmp_path / "m.gguf", kind="F32")
    assert weights_sha256(read_gguf(tmp_path / "m.gguf")) == weights_sha256(read_gguf(gguf))


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_0", "Q4_K_M"])
def test_every_quantisation_states_the_same_weights(
    model_folder: Path, gguf: Path, tmp_path: Path, kind: str
) -> None:
    convert_model(model_folder, tmp_path / "m.gguf", kind=kind)
    convert_model(gguf, tmp_path / "again.gguf", kind=kind)
    identities = {weights_sha256(read_gguf(path)) for path in [gguf, *tmp_path.glob("*.gguf")]}
    assert len(identities) == 1


def test_other_weights_are_another_model(gguf: Path, tmp_path: Path) -> None:
    convert_model(make_tiny_llama(tmp_path / "other", seed=5), tmp_path / "m.gguf")
    assert weights_sha256(read_gguf(tmp_path / "m.gguf")) != weights_sha256(read_gguf(gguf))


@pytest.mark.parametrize(("kind", "tolerance"), [("F16", 0.02), ("Q8_0", 0.5)])
def test_quantisation_costs_little(gguf: Path, tmp_path: Path, kind: str, tolerance: float) -> None:
    """Logits spread by 1.2; measured 0.008 and 0.24, the latter mostly from 8-bit activations."""
    convert_model(gguf, tmp_path / "m.gguf", kind=kind)
    exact, rounded = llama_logits(gguf, PROMPTS[1]), llama_logits(tmp_path / "m.gguf", PROMPTS[1])
    assert 0 < np.abs(exact - rounded).max() < tolerance


@pytest.mark.slow
def test_a_file_without_identity_gets_that_of_its_tensors(smollm2: Path, tmp_path: Path) -> None:
    convert_model(smollm2, tmp_path / "m.gguf", kind="Q4_0")
    assert weights_sha256(read_gguf(tmp_path / "m.gguf")) == weights_sha256(read_gguf(smollm2))


def test_rows_without_a_token_become_unused_tokens(copy: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(copy)
    model.resize_token_embeddings(400)
    model.save_pretrained(copy)
    convert_model(copy, tmp_path / "m.gguf", kind="F32")
    tokens = read_gguf(tmp_path / "m.gguf").metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    assert len(tokens) == 400
    assert tokens[399] == "[PAD399]"


def test_progress_is_told_to_the_end(model_folder: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    convert_model(model_folder, tmp_path / "m.gguf", on_progress=seen.append)
    assert seen[0].done == 0
    assert seen[-1].done == seen[-1].total


def test_a_truncated_shard_is_named(copy: Path, tmp_path: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelFileError, match=r"model\.safetensors is truncated: \d+ of \d+ bytes"):
        convert_model(copy, tmp_path / "m.gguf")


def test_a_missing_shard_is_named(copy: Path, tmp_path: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match=r"no such file: .*model-00002-of-00002"):
        convert_model(copy, tmp_path / "m.gguf")


def test_an_index_may_not_point_out_of_its_folder(copy: Path, tmp_path: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "../secret.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match="outside its folder"):
        convert_model(copy, tmp_path / "m.gguf")


def test_a_missing_tensor_is_named(copy: Path, tmp_path: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing"):
        convert_model(copy, tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "'MambaForCausalLM'.*LlamaForCausalLM"),
        ({"architectures": None}, "'none stated' is not supported"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_type 'yarn' is not supported here"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
        ({"num_attention_heads": "four"}, "num_attention_heads is 'four'"),
        ({"num_hidden_layers": 1}, r"model\.layers\.1\..* is no part of a LlamaForCausalLM"),
        ({"tie_word_embeddings": False}, r"lm_head\.weight is missing"),
    ],
)
def test_what_cannot_be_converted_is_refused_in_one_line(
    copy: Path, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    change_config(copy, **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        convert_model(copy, tmp_path / "m.gguf")
    assert "\n" not in str(caught.value)


def test_an_unknown_type_lists_those_there_are(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'Q5'; choose from F32, F16, Q4_0"):
        convert_model(model_folder, tmp_path / "m.gguf", kind="Q5")


def test_a_type_that_libllama_refuses_is_told_with_its_reason(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "wide", hidden=256)
    with pytest.raises(ModelFileError, match=r"cannot quantise .* IQ2_XXS: .*imatrix"):
        convert_model(folder, tmp_path / "m.gguf", kind="IQ2_XXS")


def test_an_adapter_is_no_model(adapter_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is no model but: adapter"):
        convert_model(adapter_gguf, tmp_path / "m.gguf")


def test_values_too_large_for_half_precision_are_refused(copy: Path, tmp_path: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.embed_tokens.weight"][0, 0] = 1e6
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"token_embd\.weight holds values too large for F16"):
        convert_model(copy, tmp_path / "m.gguf", kind="F16")


def test_a_model_neither_here_nor_on_the_hub_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelFileError, match=r"no such folder: nobody/nothing, and it could not"):
        convert_model(Path("nobody/nothing"), tmp_path / "m.gguf")
    with pytest.raises(ModelFileError, match=r"no such model: .*missing"):
        convert_model(tmp_path / "missing", tmp_path / "m.gguf")


@pytest.mark.parametrize("kind", ["F16", "Q4_0"])
def test_an_interrupted_conversion_leaves_nothing(
    model_folder: Path, tmp_path: Path, kind: str
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_model(model_folder, tmp_path / "m.gguf", kind=kind, on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_conversion_keeps_the_older_file(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"older")
    change_config(copy, architectures=["MambaForCausalLM"])
    with pytest.raises(FedptError):
        convert_model(copy, tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == b"older"


def test_a_target_that_cannot_be_written_is_told(model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*/file/m\.gguf"):
        convert_model(model_folder, tmp_path / "file" / "m.gguf", kind="Q4_0")

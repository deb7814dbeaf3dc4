"""GGUF files in torch, judged by llama.cpp's logits on the same file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from converters.gguf_output import FILE_TYPES, PlannedTensor, write_gguf
from converters.gguf_to_torch import load_causal_lm, write_transformers_folder
from converters.model_to_gguf import convert_model
from converters.tensor_names import from_rotary_order
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_models import make_tiny_llama, torch_logits

pytestmark = pytest.mark.llama

IDS = list(range(3, 60, 2))


def test_the_loaded_model_computes_what_the_original_does(gguf: Path, model_folder: Path) -> None:
    original = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    np.testing.assert_array_equal(
        torch_logits(load_causal_lm(gguf), IDS), torch_logits(original, IDS)
    )


def test_a_tied_head_stays_one_with_the_embedding(gguf: Path) -> None:
    model = load_causal_lm(gguf)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not any(weight.is_meta for weight in [*model.parameters(), *model.buffers()])


def test_an_untied_head_is_loaded(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "m", tied=False)
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    np.testing.assert_allclose(
        torch_logits(load_causal_lm(tmp_path / "m.gguf"), IDS),
        llama_logits(tmp_path / "m.gguf", IDS),
        atol=1e-4,
    )


def test_the_loaded_model_can_be_trained(gguf: Path) -> None:
    model = load_causal_lm(gguf)
    ids = torch.tensor([IDS])
    model(ids, labels=ids).loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_weights_can_be_kept_in_half_precision(gguf: Path) -> None:
    model = load_causal_lm(gguf, dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    assert model.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.fixture(scope="module")
def real_model(smollm2: Path) -> LlamaForCausalLM:
    return load_causal_lm(smollm2)


def test_the_real_smollm2_has_exactly_the_weights_of_its_file(
    smollm2: Path, real_model: LlamaForCausalLM
) -> None:
    state = real_model.state_dict()
    tensors = read_gguf(smollm2).tensors

    def stored(name: str) -> np.ndarray:
        info = tensors[name]
        data = np.fromfile(smollm2, np.uint8, info.size_bytes, offset=info.offset)
        return dequantize(data.reshape(info.shape[0], -1), GGMLQuantizationType(info.ggml_type))

    keys = from_rotary_order(stored("blk.7.attn_k.weight"), 3)
    assert np.array_equal(state["model.layers.7.self_attn.k_proj.weight"].numpy(), keys)
    down = stored("blk.29.ffn_down.weight")
    assert np.array_equal(state["model.layers.29.mlp.down_proj.weight"].numpy(), down)
    assert np.array_equal(state["lm_head.weight"].numpy(), stored("token_embd.weight"))


@pytest.mark.slow
def test_the_real_smollm2_answers_as_in_llama_cpp(
    smollm2: Path, real_model: LlamaForCausalLM, tmp_path: Path
) -> None:
    """The same weights in float32 agree to 1e-4; on the file itself llama.cpp is less exact.

    For quantised weights it rounds activations to 8 bits too. Measured: logits (which spread by
    7.7) 1.2 off at most and 0.12 in the mean square, 0.0026 nats of divergence. Wrong weights or
    a wrong rotary order give several nats.
    """
    convert_model(smollm2, tmp_path / "exact.gguf", kind="F32")
    logits = torch_logits(real_model, TEXT)
    np.testing.assert_allclose(llama_logits(tmp_path / "exact.gguf", TEXT), logits, atol=1e-3)
    assert divergence(logits, llama_logits(smollm2, TEXT)) < 0.01


TEXT = [504, 3575, 282, 4649, 314, 7042, 28, 284, 260, 3575, 282, 4672, 314]
"""`The capital of France is Paris, and the capital of Germany is`, more or less."""


def divergence(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence per position, nats."""
    one, two = (torch.log_softmax(torch.from_numpy(rows), dim=1) for rows in (ours, theirs))
    return float((one.exp() * (one - two)).sum(dim=1).mean())


def test_a_written_folder_is_the_same_model(gguf: Path, tmp_path: Path) -> None:
    write_transformers_folder(load_causal_lm(gguf), gguf, tmp_path / "folder")
    convert_model(tmp_path / "folder", tmp_path / "again.gguf", kind="F32")
    assert weights_sha256(read_gguf(tmp_path / "again.gguf")) == weights_sha256(read_gguf(gguf))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_failed_write_leaves_the_older_folder(
    gguf: Path, adapter_gguf: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "older").touch()
    with pytest.raises(ModelFileError, match="tokenizer 'None' is not supported"):
        write_transformers_folder(load_causal_lm(gguf), adapter_gguf, tmp_path / "folder")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "older"]


def test_a_truncated_file_is_refused(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "short.gguf").write_bytes(gguf.read_bytes()[:-1000])
    with pytest.raises(ModelFileError, match="is truncated"):
        load_causal_lm(tmp_path / "short.gguf")


def rewrite(base: GgufFile, target: Path, **metadata: object) -> Path:
    """Write a file's header again, with other values and with zeros for weights."""
    names = metadata.pop("without", ())
    plan = [
        PlannedTensor(name, info.shape, "F32", lambda info=info: np.zeros(info.shape, np.float32))
        for name, info in base.tensors.items()
        if name not in names  # type: ignore[operator]
    ]
    changes = {key.replace("__", "."): value for key, value in metadata.items()}
    write_gguf(target, {**base.metadata, **changes}, plan)  # type: ignore[dict-item]
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general__architecture": "mamba"}, "'mamba'; supported: gemma3"),
        ({"llama__rope__scaling__type": "yarn"}, "scaled rotary embeddings"),
        (
            {"llama__feed_forward_length": 96},
            r"blk.0.ffn_gate.weight is .* configuration makes it \(96, 64\)",
        ),
        ({"llama__block_count": 1}, "blk.1.* is not known here"),
        ({"llama__attention__head_count": 0}, "head_count is 0"),
        ({"llama__attention__head_count": 5}, "5 heads cannot share 2"),
        ({"llama__attention__layer_norm_rms_epsilon": "x"}, "a number was expected"),
        ({"without": ["token_embd.weight"]}, r"has no token_embd\.weight"),
        ({"without": ["blk.0.ffn_up.weight"]}, r"has no blk\.0\.ffn_up\.weight"),
    ],
)
def test_a_file_that_does_not_fit_its_header_is_refused(
    base: GgufFile, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    path = rewrite(base, tmp_path / "m.gguf", **changes)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_causal_lm(path)
    assert "\n" not in str(caught.value)


def test_written_files_state_their_type(base: GgufFile) -> None:
    assert base.metadata["general.file_type"] == FILE_TYPES["F32"]

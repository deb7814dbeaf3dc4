"""Adapters there and back: the same factors, for every family and kind of module."""

from pathlib import Path

import numpy as np
import pytest

from converters.adapter_to_gguf import convert_adapter
from converters.gguf_output import PlannedTensor, write_gguf
from converters.gguf_to_adapter import read_adapter
from converters.model_header import header_of
from converters.model_source import open_source
from converters.model_to_gguf import convert_model
from fedpt.adapters import Adapter, read_peft_folder, write_peft_folder
from fedpt.errors import AdapterError, WrongBaseError
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from tests.fakes.raw_llama import llama_logits
from tests.fakes.tiny_families import make_tiny_family
from tests.fakes.tiny_models import load_tuned, make_tiny_adapter, make_tiny_llama, torch_logits

pytestmark = pytest.mark.llama

IDS = list(range(3, 60, 2))


def make_base(folder: Path, name: str) -> GgufFile:
    make_tiny_family(folder / "m", name)
    convert_model(folder / "m", folder / "m.gguf", kind="F32")
    return read_gguf(folder / "m.gguf")


def read_folder(folder: Path, base: GgufFile) -> Adapter:
    return read_peft_folder(folder, base_weights=weights_sha256(base))


@pytest.mark.parametrize("name", ["llama", "qwen3", "phi3", "gpt2"])
def test_an_adapter_comes_back_the_same(tmp_path: Path, name: str) -> None:
    base = make_base(tmp_path, name)
    make_tiny_adapter(tmp_path / "a", tmp_path / "m", targets="all-linear")
    adapter = read_folder(tmp_path / "a", base)
    convert_adapter(adapter, base, tmp_path / "a.gguf")
    back = read_adapter(tmp_path / "a.gguf", base)
    assert back.manifest == adapter.manifest
    assert back.tensors.keys() == adapter.tensors.keys()
    for key, tensor in adapter.tensors.items():
        np.testing.assert_array_equal(back.tensors[key], tensor)


@pytest.mark.parametrize("name", ["llama", "gpt2, untied, own inner size"])
def test_embedding_and_untied_head_can_be_adapted(tmp_path: Path, name: str) -> None:
    base = make_base(tmp_path, name)
    embedding = "wte" if name.startswith("gpt2") else "embed_tokens"
    folder = make_tiny_adapter(tmp_path / "a", tmp_path / "m", targets=[embedding, "lm_head"])
    convert_adapter(read_folder(folder, base), base, tmp_path / "a.gguf")
    theirs = torch_logits(load_tuned(tmp_path / "m", folder), IDS)
    assert np.abs(theirs - llama_logits(base.path, IDS)).max() > 0.1
    np.testing.assert_allclose(llama_logits(base.path, IDS, tmp_path / "a.gguf"), theirs, atol=1e-3)
    write_peft_folder(read_adapter(tmp_path / "a.gguf", base), tmp_path / "back")
    again = torch_logits(load_tuned(tmp_path / "m", tmp_path / "back"), IDS)
    np.testing.assert_allclose(again, theirs, atol=1e-6)


@pytest.mark.parametrize("module", ["embed_tokens", "lm_head"])
def test_a_tied_head_cannot_be_adapted_and_the_reason_is_told(tmp_path: Path, module: str) -> None:
    base = make_base(tmp_path, "qwen2")
    folder = make_tiny_adapter(tmp_path / "a", tmp_path / "m", targets=[module])
    with pytest.raises(AdapterError, match="embedding and head of this model are one tensor"):
        convert_adapter(read_folder(folder, base), base, tmp_path / "a.gguf")


def test_rslora_is_scaled_as_peft_does(tmp_path: Path) -> None:
    folder = make_tiny_llama(tmp_path / "m")
    make_tiny_adapter(tmp_path / "a", folder, rank=9, rslora=True)
    convert_model(folder, tmp_path / "m.gguf", kind="F32")
    base = read_gguf(tmp_path / "m.gguf")
    convert_adapter(read_folder(tmp_path / "a", base), base, tmp_path / "a.gguf")
    theirs = torch_logits(load_tuned(folder, tmp_path / "a"), IDS)
    np.testing.assert_allclose(llama_logits(base.path, IDS, tmp_path / "a.gguf"), theirs, atol=1e-4)


def test_peft_loads_what_comes_back(
    model_folder: Path, adapter_folder: Path, adapter_gguf: Path, tmp_path: Path
) -> None:
    base = header_of(open_source(model_folder, name="m"))
    write_peft_folder(read_adapter(adapter_gguf, base), tmp_path / "back")
    ours, theirs = (
        torch_logits(load_tuned(model_folder, one), IDS)
        for one in (tmp_path / "back", adapter_folder)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def rewrite(source: Path, target: Path, **changes: object) -> Path:
    """The adapter's file with other metadata, or other tensors."""
    file = read_gguf(source)
    shapes = changes.pop("shapes", None) or {name: t.shape for name, t in file.tensors.items()}
    plan = [
        PlannedTensor(name, shape, "F32", lambda shape=shape: np.zeros(shape, np.float32))
        for name, shape in shapes.items()  # type: ignore[attr-defined]
    ]
    renamed = {key.replace("__", "."): value for key, value in changes.items()}
    write_gguf(target, {**file.metadata, **renamed}, plan)  # type: ignore[dict-item]
    return target


def test_an_alpha_of_zero_is_a_scale_of_one(
    adapter_gguf: Path, base: GgufFile, tmp_path: Path
) -> None:
    path = rewrite(adapter_gguf, tmp_path / "a.gguf", adapter__lora__alpha=0.0)
    manifest = read_adapter(path, base).manifest
    assert manifest.alpha == manifest.rank == 4


def test_an_adapter_of_another_base_is_refused(
    adapter_gguf: Path, base: GgufFile, tmp_path: Path
) -> None:
    path = rewrite(adapter_gguf, tmp_path / "a.gguf", fedpt__base__weights__sha256="0" * 64)
    with pytest.raises(WrongBaseError, match="was trained on the base model 000000000000"):
        read_adapter(path, base)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            {
                "blk.0.attn_q.weight.lora_a": (4, 64), "blk.0.attn_q.weight.lora_b": (64, 4),
                "blk.1.attn_q.weight.lora_a": (2, 64), "blk.1.attn_q.weight.lora_b": (64, 2),
            },
            r"factors of the ranks \[2, 4\]",
        ),
        (
            {"token_embd.weight.lora_a": (384, 4), "token_embd.weight.lora_b": (64, 4)},
            "embedding and head of the base model are one tensor",
        ),
    ],
)  # fmt: skip
def test_what_peft_could_not_say_is_refused(
    adapter_gguf: Path, base: GgufFile, shapes: dict[str, object], message: str
) -> None:
    path = rewrite(adapter_gguf, adapter_gguf.with_name("odd.gguf"), shapes=shapes)
    with pytest.raises(AdapterError, match=message):
        read_adapter(path, base)

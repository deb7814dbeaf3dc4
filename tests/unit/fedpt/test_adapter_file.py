"""What `require_adapter_fits` lets through to libllama, and what not."""

from pathlib import Path

import numpy as np
import pytest

from converters.gguf_output import PlannedTensor, write_gguf
from fedpt.adapter_file import require_adapter_fits
from fedpt.errors import AdapterError, ModelFileError, WrongBaseError
from fedpt.gguf_file import BASE_WEIGHTS_KEY, WEIGHTS_KEY, GgufFile, GgufValue, read_gguf

IDENTITY = "b" * 64
GOOD: dict[str, GgufValue] = {
    "general.architecture": "llama",
    "general.type": "adapter",
    "adapter.type": "lora",
    "adapter.lora.alpha": 8.0,
    BASE_WEIGHTS_KEY: IDENTITY,
}
PAIR = {"blk.0.attn_q.weight.lora_a": (2, 6), "blk.0.attn_q.weight.lora_b": (4, 2)}


def write(path: Path, metadata: dict[str, GgufValue], shapes: dict[str, tuple[int, ...]]) -> Path:
    tensors = [
        PlannedTensor(name, shape, "F32", lambda shape=shape: np.zeros(shape, np.float32))
        for name, shape in shapes.items()
    ]
    write_gguf(path, metadata, tensors)
    return path


@pytest.fixture
def base(tmp_path: Path) -> GgufFile:
    """A model of one matrix, 4 by 6."""
    metadata: dict[str, GgufValue] = {"general.architecture": "llama", WEIGHTS_KEY: IDENTITY}
    return read_gguf(write(tmp_path / "base.gguf", metadata, {"blk.0.attn_q.weight": (4, 6)}))


def test_an_adapter_that_fits_is_let_through(base: GgufFile, tmp_path: Path) -> None:
    require_adapter_fits(write(tmp_path / "a.gguf", GOOD, PAIR), base)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.type": "model"}, "general.type is 'model', not 'adapter'"),
        ({"adapter.type": "control"}, "adapter.type is 'control', not 'lora'"),
        ({"general.architecture": "qwen2"}, "is 'qwen2', not 'llama'"),
        ({"adapter.lora.alpha": 8}, "adapter.lora.alpha is stored as type 4"),
        ({BASE_WEIGHTS_KEY: ""}, "does not say which base model it is for"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(
    base: GgufFile, tmp_path: Path, changes: dict[str, GgufValue], message: str
) -> None:
    path = write(tmp_path / "a.gguf", GOOD | changes, PAIR)
    with pytest.raises(AdapterError, match=message):
        require_adapter_fits(path, base)


def test_an_adapter_of_another_base_is_refused(base: GgufFile, tmp_path: Path) -> None:
    path = write(tmp_path / "a.gguf", GOOD | {BASE_WEIGHTS_KEY: "c" * 64}, PAIR)
    with pytest.raises(WrongBaseError, match=r"cccccccccccc….*bbbbbbbbbbbb…"):
        require_adapter_fits(path, base)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({}, "has no tensors"),
        ({"blk.0.attn_q.weight.lora_a": (2, 6)}, "is no half of a LoRA pair"),
        ({**PAIR, "blk.0.attn_q.weight": (4, 6)}, "is no half of a LoRA pair"),
        ({name.replace("_q", "_x"): shape for name, shape in PAIR.items()}, "has no tensor"),
        ({**PAIR, "blk.0.attn_q.weight.lora_a": (2, 7)}, "do not fit"),
        ({**PAIR, "blk.0.attn_q.weight.lora_a": (3, 6)}, "do not fit"),
        ({**PAIR, "blk.0.attn_q.weight.lora_b": (6, 2)}, "do not fit"),
        ({**PAIR, "blk.0.attn_q.weight.lora_b": (8,)}, "do not fit"),
    ],
)
def test_an_adapter_of_another_shape_is_refused(
    base: GgufFile, tmp_path: Path, shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    path = write(tmp_path / "a.gguf", GOOD, shapes)
    with pytest.raises(AdapterError, match=message):
        require_adapter_fits(path, base)


@pytest.mark.parametrize("size", [0, 3, 100, -20])
def test_a_damaged_adapter_is_an_adapter_error(base: GgufFile, tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "a.gguf", GOOD, PAIR)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(AdapterError, match="not a usable adapter") as caught:
        require_adapter_fits(path, base)
    assert isinstance(caught.value.__cause__, ModelFileError)

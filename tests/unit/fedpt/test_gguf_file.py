"""Reading GGUF headers: what was written is read back, and nothing damaged gets through."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from converters.gguf_output import PlannedTensor, write_gguf
from fedpt.errors import ModelFileError
from fedpt.gguf_file import WEIGHTS_KEY, GgufFile, read_gguf, weights_sha256

METADATA = {
    "general.architecture": "llama",
    "general.name": "tiny",
    "llama.block_count": 1,
    "llama.scale": 0.5,
    "flag": True,
    "tokens": ["a", "ü", "", "Ġthe"],
    "types": [1, 3, 1, -1],
}
WEIGHTS = np.arange(64, dtype=np.float32).reshape(2, 32)


def planned(name: str, kind: str, values: np.ndarray = WEIGHTS) -> PlannedTensor:
    return PlannedTensor(name, values.shape, kind, lambda: values)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small file with every kind of value."""
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tensors = [planned("x", "F32"), planned("y", "F16"), planned("z", "Q8_0")]
    write_gguf(path, METADATA, tensors)
    return path


@pytest.fixture(scope="module")
def scratch(path: Path) -> Callable[[bytes], Path]:
    """Writes bytes to a file that the next call overwrites."""

    def write(content: bytes) -> Path:
        target = path.with_name("scratch.gguf")
        target.write_bytes(content)
        return target

    return write


def test_what_was_written_is_read_back(path: Path) -> None:
    file = read_gguf(path)
    assert dict(file.metadata) == METADATA
    assert {name: info.shape for name, info in file.tensors.items()} == dict.fromkeys(
        "xyz", (2, 32)
    )
    assert [info.size_bytes for info in file.tensors.values()] == [256, 128, 68]


def test_tensors_lie_where_the_table_says(path: Path) -> None:
    tensor = read_gguf(path).tensors["x"]
    stored = np.frombuffer(path.read_bytes(), np.float32, 64, tensor.offset)
    assert np.array_equal(stored.reshape(2, 32), WEIGHTS)


def test_a_number_must_be_a_whole_number(path: Path) -> None:
    file = read_gguf(path)
    assert file.number("llama.block_count") == 1
    for key in ("flag", "llama.scale", "missing"):
        with pytest.raises(ModelFileError, match="a whole number was expected"):
            file.number(key)


@given(end=st.integers(0, 2000))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_a_file_cut_anywhere_is_refused(
    path: Path, scratch: Callable[[bytes], Path], end: int
) -> None:
    content = path.read_bytes()
    padding = 28  # the last tensor is padded to 32 bytes, which nothing needs
    with pytest.raises(ModelFileError):
        read_gguf(scratch(content[: min(end, len(content) - padding - 1)]))


@given(changes=st.dictionaries(st.integers(0, 1023), st.integers(0, 255), min_size=1, max_size=8))
@settings(max_examples=500)
def test_changed_bytes_are_read_or_refused_but_never_crash(
    path: Path, scratch: Callable[[bytes], Path], changes: dict[int, int]
) -> None:
    content = bytearray(path.read_bytes())
    for place, value in changes.items():
        content[place % len(content)] = value
    target = scratch(bytes(content))
    try:
        file = read_gguf(target)
    except ModelFileError:
        return
    assert all(info.offset + info.size_bytes <= len(content) for info in file.tensors.values())
    weights_sha256(file)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p, "no such model file"),
        (lambda p: p.mkdir(), "is a folder, a GGUF file was expected"),
        (lambda p: p.touch(), "is not a usable GGUF file"),
        (lambda p: p.write_bytes(b"PK\x03\x04" * 20), "does not begin with GGUF"),
        (lambda p: p.write_bytes(b"GGUF\x09\0\0\0" + bytes(16)), "version 9 is not supported"),
    ],
)
def test_what_is_no_gguf_file_is_told(
    tmp_path: Path, make: Callable[[Path], object], message: str
) -> None:
    make(tmp_path / "m.gguf")
    with pytest.raises(ModelFileError, match=message):
        read_gguf(tmp_path / "m.gguf")


def write_weights(path: Path, value: float, metadata: dict[str, str] | None = None) -> GgufFile:
    values = np.full((2, 2), value, np.float32)
    header = {"general.architecture": "llama", **(metadata or {})}
    write_gguf(path, header, [planned("w", "F32", values)])
    return read_gguf(path)


def test_the_stated_identity_is_taken(tmp_path: Path) -> None:
    assert weights_sha256(write_weights(tmp_path / "m", 1, {WEIGHTS_KEY: "a" * 64})) == "a" * 64


def test_without_a_stated_identity_the_weights_are_it(tmp_path: Path) -> None:
    first = weights_sha256(write_weights(tmp_path / "one", 1, {"general.name": "one"}))
    same = weights_sha256(write_weights(tmp_path / "two", 1, {WEIGHTS_KEY: "no hash"}))
    other = weights_sha256(write_weights(tmp_path / "three", 2))
    assert first == same != other

"""Opening a GGUF file: metadata, tensor table, identity; checked before any C library sees it.

Needs neither `gguf` nor libllama, so any board can check a file first: libllama crashes on damaged
files, and files come from networks. What is checked is in `fedpt.gguf_header` (the format) and
`fedpt.gguf_checks` (what llama.cpp can bear). Tensor data is never read here, only hashed.
"""

import hashlib
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fedpt.errors import ModelFileError
from fedpt.gguf_checks import require_loadable
from fedpt.gguf_header import GgufValue, Header, TensorInfo, parse_header
from fedpt.ids import Sha256, is_sha256

__all__ = [
    "BASE_WEIGHTS_KEY",
    "WEIGHTS_KEY",
    "GgufFile",
    "GgufValue",
    "TensorInfo",
    "read_gguf",
    "weights_sha256",
]

WEIGHTS_KEY: Final = "fedpt.weights.sha256"
"""Hash of the weights a model file was made from: the same for every quantisation of them."""

BASE_WEIGHTS_KEY: Final = "fedpt.base.weights.sha256"
"""In an adapter's file: `WEIGHTS_KEY` of the base that it was trained on."""


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file that was found whole and such that llama.cpp can open it."""

    path: Path
    metadata: Mapping[str, GgufValue]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """Such as `llama`; empty if the file does not say."""
        return str(self.metadata.get("general.architecture", ""))

    @property
    def name(self) -> str:
        """What people call the model: its own name, else the file's."""
        return str(self.metadata.get("general.name") or self.path.name)

    def number(self, key: str) -> int:
        """A metadata value that must be a whole number.

        Raises:
            ModelFileError: It is missing or something else.
        """
        value = self.metadata.get(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ModelFileError(f"{self.path}: {key} is {value!r}, a whole number was expected")
        return value


def read_gguf(path: Path) -> GgufFile:
    """Read a GGUF file's header and check all that libllama would trust blindly.

    Raises:
        ModelFileError: The file is missing, truncated, not GGUF, or such that libllama would crash
            on it; the message says which.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            header = _checked(data)
            return GgufFile(path, header.metadata, header.tensors)
    except FileNotFoundError:
        raise ModelFileError(f"no such model file: {path}") from None
    except IsADirectoryError:
        raise ModelFileError(
            f"{path} is a folder, a GGUF file was expected; make one with"
            f" 'fedpt convert model {path} OUT.gguf'"
        ) from None
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, struct.error, OverflowError) as error:
        # mmap raises ValueError for an empty file, decoding for bytes that are no UTF-8
        raise ModelFileError(f"{path} is not a usable GGUF file: {error}") from error


def weights_sha256(file: GgufFile) -> Sha256:
    """Which weights these are, however quantised: the file's own word, else a hash of its tensors.

    Raises:
        ModelFileError: The file cannot be read.
    """
    stated = file.metadata.get(WEIGHTS_KEY)
    if isinstance(stated, str) and is_sha256(stated):
        return Sha256(stated)
    digest = hashlib.sha256()
    try:
        with file.path.open("rb") as data:
            for name in sorted(file.tensors):
                tensor = file.tensors[name]
                digest.update(f"{name} {tensor.shape} {tensor.ggml_type}\n".encode())
                data.seek(tensor.offset)
                digest.update(data.read(tensor.size_bytes))
    except OSError as error:
        raise ModelFileError(f"cannot read {file.path}: {error.strerror}") from error
    return Sha256(digest.hexdigest())


def _checked(data: mmap.mmap) -> Header:
    header = parse_header(data)
    require_loadable(header.metadata, header.tensors)
    return header

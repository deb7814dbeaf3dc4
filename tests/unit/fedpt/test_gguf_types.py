"""The table of types is ggml's own."""

import ctypes
from pathlib import Path

import llama_cpp
import pytest

from fedpt.gguf_types import GGML_TYPE_IDS, GGML_TYPES


@pytest.mark.llama
def test_every_type_is_as_ggml_has_it() -> None:
    folder = Path(llama_cpp.__file__).parent / "lib"
    ggml = ctypes.CDLL(str(next(folder.glob("*ggml-base*"))))
    ggml.ggml_type_size.restype, ggml.ggml_blck_size.restype = ctypes.c_size_t, ctypes.c_int64
    for number, known in GGML_TYPES.items():
        size = ggml.ggml_blck_size(number), ggml.ggml_type_size(number)
        assert (known.block, known.block_bytes) == size, known.name
    assert GGML_TYPE_IDS["Q4_K"] == 12

"""Quantising a GGUF file with libllama: kinds that `gguf` cannot write, and files that are GGUF.

Which kinds exist is asked of libllama. Unquantised kinds and Q8_0 of transformers folders are
written without it: `converters.gguf_output`.
"""

import ctypes
import os
from pathlib import Path
from typing import Final

import llama_cpp

from converters.libllama import caught_log
from fedpt.errors import ModelFileError, UsageError
from fedpt.gguf_file import WEIGHTS_KEY
from fedpt.ids import Sha256

_PREFIX: Final = "LLAMA_FTYPE_MOSTLY_"
_ALL_F32: Final = "LLAMA_FTYPE_ALL_F32"
_LARGEST_BUFFER_BYTES: Final = 1 << 30  # libllama's own default of 8 GiB is more than a board has


def require_kind(kind: str) -> None:
    """Refuse a kind that libllama does not know.

    Raises:
        UsageError: Lists those that it knows.
    """
    if kind not in _kinds():
        raise UsageError(f"no such type: {kind!r}; choose from {', '.join(_kinds())}")


def quantise(source: Path, target: Path, kind: str, *, weights: Sha256) -> None:
    """Write `source` again with its matrices as `kind`; the caller puts it in its place.

    A source that is quantised already is quantised again, which loses a little each time.

    Args:
        source: A GGUF model that `fedpt.gguf_file.read_gguf` has accepted: libllama crashes on
            damaged ones.
        target: Where to write.
        kind: As in `require_kind`.
        weights: The identity to state in the new file.

    Raises:
        ModelFileError: libllama refused; the message has its reason.
        UsageError: See `require_kind`.
    """
    require_kind(kind)
    identity = _string_override(WEIGHTS_KEY, weights)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = _kinds()[kind]
    parameters.nthread = os.cpu_count() or 1
    parameters.allow_requantize = True
    parameters.max_buf_size = _LARGEST_BUFFER_BYTES
    parameters.kv_overrides = ctypes.cast(
        identity, ctypes.POINTER(llama_cpp.llama_model_kv_override)
    )
    with caught_log() as errors:
        code = llama_cpp.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(parameters)
        )
    if code:
        reason = errors[0] if errors else f"code {code}"
        raise ModelFileError(f"llama.cpp cannot quantise this model to {kind}: {reason}")


def _kinds() -> dict[str, int]:
    """The constants of libllama, by what comes after their prefix."""
    mostly = {
        name.removeprefix(_PREFIX): value
        for name, value in vars(llama_cpp).items()
        if name.startswith(_PREFIX)
    }
    return {"F32": getattr(llama_cpp, _ALL_F32)} | mostly


def _string_override(key: str, value: str) -> ctypes.Array[llama_cpp.llama_model_kv_override]:
    """A metadata string to set, and the empty key that ends the list."""
    overrides = (llama_cpp.llama_model_kv_override * 2)()
    overrides[0].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
    overrides[0].key = key.encode()
    overrides[0].value.val_str = value.encode()  # type: ignore[union-attr]  # a ctypes union
    return overrides

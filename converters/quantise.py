"""Quantising a GGUF file with libllama's own quantiser, and asking it beforehand what it would do.

Which kinds exist is asked of libllama. Unquantised kinds and Q8_0 of transformers folders are
written without it: `converters.gguf_output`. Which kind is best is `converters.quantise_choice`.
"""

import ctypes
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import llama_cpp
import numpy as np
import numpy.typing as npt

from converters.libllama import caught_talk
from converters.quantise_facts import NEEDS_IMPORTANCE
from fedpt.errors import ModelFileError, UsageError
from fedpt.gguf_file import WEIGHTS_KEY, GgufFile
from fedpt.gguf_types import GGML_TYPE_IDS, GGML_TYPES, UNCOMPUTABLE
from fedpt.ids import Sha256

_PREFIX: Final = "LLAMA_FTYPE_MOSTLY_"
_ALL_F32: Final = "LLAMA_FTYPE_ALL_F32"
_NO_QUANTISER: Final = frozenset({"NVFP4"})  # libllama knows files of it, and makes none
_UNQUANTISED: Final = frozenset({"F32", "F16", "BF16"})
_GUIDED_KIND: Final = "Q2_K_S"  # the one K-quant that wants an importance matrix
_LARGEST_BUFFER_BYTES: Final = 128 << 20  # libllama's own default is 8 GiB
_ENTRIES_KEY: Final = "quantize.imatrix.entries_count"  # as llama.cpp's own tool names it
_ALIGNMENT: Final = 32

_PLANNED: Final = re.compile(
    r"^\[ *\d+/ *\d+\] (\S+) .*?, type = +(\w+), size = [^(]*(?:\((\w+)\))?"
)
_FALLBACK: Final = re.compile(
    r"warning: (\S+) .*\(required for type +(\w+)\).*falling back to +(\w+)"
)
_REASON: Final = "failed to quantize: "
_USUAL_HEAD: Final = "Q6_K"  # what libllama makes of a head, whatever the kind
_HEADS_IN_Q8_0: Final = frozenset({"Q8_0", "MXFP4_MOE"})  # but for these
_HEADS: Final = ("output.weight", "token_embd.weight")

Importance = Mapping[str, npt.NDArray[np.float32]]
"""By a matrix's name in GGUF: how much each of its columns matters."""


@dataclass(frozen=True, slots=True)
class Adjustments:
    """What is to differ from a kind's usual mixture."""

    overrides: tuple[tuple[str, str], ...] = ()
    """Regular expressions of tensor names, each with a tensor type; the first that matches."""
    importance: Importance = field(default_factory=dict)
    """Empty: all columns matter the same."""


@dataclass(frozen=True, slots=True)
class Fallback:
    """A tensor that cannot be stored as its kind wants it, for its rows are no whole blocks."""

    tensor: str
    wanted: str
    stored: str
    columns: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """What quantising would give."""

    kind: str
    types: Mapping[str, str]
    """Of every tensor."""
    fallbacks: tuple[Fallback, ...]
    size_bytes: int
    """Of the file, up to a few hundred bytes of header."""
    needs_importance: str
    """A tensor that libllama will not write without an importance matrix; empty if there is
    none."""


def kinds() -> dict[str, int]:
    """Every kind that libllama can make, with its number there."""
    mostly = {
        name.removeprefix(_PREFIX): value
        for name, value in vars(llama_cpp).items()
        if name.startswith(_PREFIX)
    }
    every = {"F32": getattr(llama_cpp, _ALL_F32)} | mostly
    return {name: number for name, number in every.items() if name not in _NO_QUANTISER}


def kind_of(file: GgufFile) -> str:
    """What quantisation a file says it is, such as Q4_K_M; ? if that is not known."""
    stated = file.metadata.get("general.file_type")
    return next((name for name, number in kinds().items() if number == stated), "?")


def require_kind(kind: str) -> None:
    """Refuse a kind that libllama does not know.

    Raises:
        UsageError: Lists those that it knows.
    """
    if kind not in kinds():
        raise UsageError(f"no such type: {kind!r}; choose from {', '.join(kinds())}")


def parse_overrides(texts: Sequence[str], kind: str) -> tuple[tuple[str, str], ...]:
    """`REGEX=TYPE` as people write it.

    Raises:
        UsageError: One is of another form, its expression or type is none, or the kind is one that
            libllama writes as it is.
    """
    if texts and kind in _UNQUANTISED:
        raise UsageError(f"{kind} stores all matrices alike; give a quantised --type to adjust")
    return tuple(_override(text) for text in texts)


def foresee(source: GgufFile, kind: str, adjustments: Adjustments | None = None) -> Forecast:
    """What `quantise` would write, without writing or reading any weights.

    Raises:
        ModelFileError: libllama refuses the file; the message has its reason.
        UsageError: See `require_kind`; or an override names no tensor of this model.
    """
    adjustments = adjustments or Adjustments()
    _require_matches(source, adjustments)
    lines = _run(source.path, source.path, kind, adjustments, dry=True)
    types = {}
    for line in lines:
        if match := _PLANNED.match(line):
            name, before, after = match.groups()
            types[name] = (after or before).upper()
    found = [match.groups() for match in map(_FALLBACK.search, lines) if match]
    fallbacks = [
        Fallback(name, wanted.upper(), stored.upper(), source.tensors[name].shape[-1])
        for name, wanted, stored in found
    ]
    told = {fallback.tensor for fallback in fallbacks}
    silent = _silent_fallbacks(source, kind, types, adjustments)
    fallbacks += [fallback for fallback in silent if fallback.tensor not in told]
    return Forecast(
        kind,
        types,
        tuple(fallbacks),
        _size_bytes(source, types),
        _unguided(kind, types, adjustments),
    )


def quantise(
    source: Path,
    target: Path,
    kind: str,
    *,
    weights: Sha256,
    adjustments: Adjustments | None = None,
) -> None:
    """Write `source` again with its matrices as `kind`; the caller puts it in its place.

    A source that is quantised already is quantised again, which loses a little each time. Memory:
    the largest tensor's share of a buffer of 128 MiB, and the importance matrix.

    Args:
        source: A GGUF model that `fedpt.gguf_file.read_gguf` has accepted: libllama crashes on
            damaged ones.
        target: Where to write.
        kind: As in `require_kind`.
        weights: The identity to state in the new file.
        adjustments: What is to differ from the usual.

    Raises:
        ModelFileError: libllama refused; the message has its reason.
        UsageError: See `require_kind`.
    """
    _run(source, target, kind, adjustments or Adjustments(), weights=weights)


def _run(
    source: Path,
    target: Path,
    kind: str,
    adjustments: Adjustments,
    *,
    weights: Sha256 | None = None,
    dry: bool = False,
) -> list[str]:
    """Call libllama; what it said, line by line."""
    require_kind(kind)
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = kinds()[kind]
    parameters.nthread = os.cpu_count() or 1
    parameters.allow_requantize = True
    parameters.max_buf_size = _LARGEST_BUFFER_BYTES
    parameters.dry_run = dry
    stated = _stated(weights, adjustments)
    parameters.kv_overrides = ctypes.cast(stated, ctypes.POINTER(llama_cpp.llama_model_kv_override))
    overrides = _override_array(adjustments.overrides)
    parameters.tt_overrides = ctypes.cast(
        overrides, ctypes.POINTER(llama_cpp.llama_model_tensor_override)
    )
    columns = _importance_array(adjustments.importance)
    if adjustments.importance:
        parameters.imatrix = ctypes.cast(
            columns, ctypes.POINTER(llama_cpp.llama_model_imatrix_data)
        )
    with caught_talk() as talk:
        code = llama_cpp.llama_model_quantize(
            str(source).encode(), str(target).encode(), ctypes.byref(parameters)
        )
    lines = "".join(talk).splitlines()
    if code:
        reasons = [line.partition(_REASON)[2] for line in lines if _REASON in line]
        raise ModelFileError(
            f"llama.cpp cannot quantise this model to {kind}: {(reasons or [f'code {code}'])[0]}"
        )
    return lines


def _override(text: str) -> tuple[str, str]:
    pattern, sign, kind = text.rpartition("=")
    kind = kind.strip().upper()
    possible = [
        known.name
        for number, known in GGML_TYPES.items()
        if number not in UNCOMPUTABLE and known.name not in _NO_QUANTISER
    ]
    if not sign or not pattern:
        raise UsageError(f"--tensor {text!r} is not of the form REGEX=TYPE")
    if kind not in possible:
        raise UsageError(f"no such tensor type: {kind!r}; choose from {', '.join(possible)}")
    try:
        re.compile(pattern)
    except re.error as error:
        raise UsageError(f"--tensor {text!r}: {pattern!r} is no expression: {error}") from error
    return pattern, kind


def _require_matches(source: GgufFile, adjustments: Adjustments) -> None:
    for pattern, _ in adjustments.overrides:
        if not any(re.search(pattern, name) for name in source.tensors):
            raise UsageError(
                f"no tensor of {source.path.name} matches {pattern!r}; they are called like"
                f" {', '.join(list(source.tensors)[:3])}"
            )


def _silent_fallbacks(
    source: GgufFile, kind: str, types: Mapping[str, str], adjustments: Adjustments
) -> list[Fallback]:
    """The head's, which libllama does not tell of where the kind itself is of long blocks."""
    head = next((name for name in _HEADS if name in source.tensors), None)
    if head is None or types.get(head) != "Q8_0" or kind in _HEADS_IN_Q8_0:
        return []
    columns = source.tensors[head].shape[-1]
    is_chosen = any(re.search(pattern, head) for pattern, _ in adjustments.overrides)
    is_whole = columns % GGML_TYPES[GGML_TYPE_IDS[_USUAL_HEAD]].block == 0
    return [] if is_chosen or is_whole else [Fallback(head, _USUAL_HEAD, "Q8_0", columns)]


def _unguided(kind: str, types: Mapping[str, str], adjustments: Adjustments) -> str:
    """The first tensor that libllama will not write so."""
    wanting = NEEDS_IMPORTANCE | ({"Q2_K"} if kind == _GUIDED_KIND else set())
    for name, stored in types.items():
        if stored in wanting and name not in _HEADS and name not in adjustments.importance:
            return name
    return ""


def _size_bytes(source: GgufFile, types: Mapping[str, str]) -> int:
    header = min((tensor.offset for tensor in source.tensors.values()), default=0)
    for name, stored in types.items():
        values = int(np.prod(source.tensors[name].shape))
        size = GGML_TYPES[GGML_TYPE_IDS[stored]].size_bytes(values)
        header += -(-size // _ALIGNMENT) * _ALIGNMENT
    return header


def _stated(
    weights: Sha256 | None, adjustments: Adjustments
) -> ctypes.Array[llama_cpp.llama_model_kv_override]:
    """Metadata to set, and the empty key that ends the list."""
    overrides = (llama_cpp.llama_model_kv_override * 3)()
    place = 0
    if weights:
        overrides[place].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR
        overrides[place].key = WEIGHTS_KEY.encode()
        overrides[place].value.val_str = weights.encode()  # type: ignore[union-attr]  # ctypes
        place += 1
    if adjustments.importance:
        overrides[place].tag = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT
        overrides[place].key = _ENTRIES_KEY.encode()
        overrides[place].value.val_i64 = len(adjustments.importance)  # type: ignore[union-attr]
    return overrides


def _override_array(
    overrides: Sequence[tuple[str, str]],
) -> ctypes.Array[llama_cpp.llama_model_tensor_override]:
    array = (llama_cpp.llama_model_tensor_override * (len(overrides) + 1))()  # ends with a null
    for place, (pattern, kind) in enumerate(overrides):
        array[place].pattern = pattern.encode()
        array[place].type = GGML_TYPE_IDS[kind]
    return array


def _importance_array(importance: Importance) -> ctypes.Array[llama_cpp.llama_model_imatrix_data]:
    array = (llama_cpp.llama_model_imatrix_data * (len(importance) + 1))()  # ends with a null
    for place, (name, columns) in enumerate(importance.items()):
        array[place].name = name.encode()
        array[place].data = columns.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        array[place].size = columns.size
    return array

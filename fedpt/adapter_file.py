"""Whether a GGUF adapter fits the model it is about to be loaded into, from headers alone.

libllama crashes on an adapter that does not fit, and answers nonsense with one that fits in form
only; so every driver asks here first. Writing such files is `converters.adapter_to_gguf`.
"""

from pathlib import Path
from typing import Final

from fedpt.adapters import require_base
from fedpt.errors import AdapterError, ModelFileError
from fedpt.gguf_file import BASE_WEIGHTS_KEY, GgufFile, read_gguf, weights_sha256

_FIRST: Final = ".lora_a"
_SECOND: Final = ".lora_b"
_EMBEDDING: Final = "token_embd.weight"
_HEAD: Final = "output.weight"


def require_adapter_fits(adapter_gguf: Path, base: GgufFile) -> None:
    """Refuse a GGUF adapter that libllama could not load onto `base`, or should not.

    Raises:
        AdapterError: It is damaged, no LoRA adapter, or of other shapes than the base.
        WrongBaseError: It was trained on another base.
        ModelFileError: The base cannot be read. Drivers catch none of these; the daemons refuse
            the adapter with the error's code.
    """
    try:
        adapter = read_gguf(adapter_gguf)
    except ModelFileError as error:
        raise AdapterError(f"not a usable adapter: {error}") from error
    _require_lora(adapter, base)
    stated = str(adapter.metadata.get(BASE_WEIGHTS_KEY, ""))
    expected = weights_sha256(base)
    if not stated:
        raise AdapterError(
            f"{adapter_gguf} does not say which base model it is for ({BASE_WEIGHTS_KEY});"
            " make it with 'fedpt convert adapter'"
        )
    require_base(str(adapter_gguf), stated, expected)
    _require_shapes(adapter, base)


def _require_lora(adapter: GgufFile, base: GgufFile) -> None:
    expected = {
        "general.type": "adapter",
        "adapter.type": "lora",
        "general.architecture": base.architecture,
    }
    for key, value in expected.items():
        if adapter.metadata.get(key) != value:
            raise AdapterError(
                f"{adapter.path}: {key} is {adapter.metadata.get(key)!r}, not {value!r}"
            )
    if not isinstance(adapter.metadata.get("adapter.lora.alpha"), float):
        raise AdapterError(f"{adapter.path}: adapter.lora.alpha is missing")


def _require_shapes(adapter: GgufFile, base: GgufFile) -> None:
    """Every pair is complete and its product has the shape of a matrix of the base."""
    if not adapter.tensors:
        raise AdapterError(f"{adapter.path} has no tensors")
    for name in adapter.tensors:
        target = name.removesuffix(_FIRST).removesuffix(_SECOND)
        first = adapter.tensors.get(target + _FIRST)
        second = adapter.tensors.get(target + _SECOND)
        if first is None or second is None or name == target:
            raise AdapterError(f"{adapter.path}: tensor {name!r} is no half of a LoRA pair")
        matrix = base.tensors.get(target)
        if target == _EMBEDDING and _HEAD not in base.tensors:
            raise AdapterError(
                f"{adapter.path}: embedding and head of the base model are one tensor, {target!r};"
                " llama.cpp cannot change one of them alone"
            )
        if matrix is None:
            raise AdapterError(f"{adapter.path}: the base model has no tensor {target!r}")
        rank, wanted = second.shape[-1], matrix.shape
        if target == _EMBEDDING:  # llama.cpp looks tokens up in the rows of A, so it is transposed
            shapes = ((wanted[0], rank), (wanted[-1], rank))
        else:
            shapes = ((rank, wanted[-1]), (wanted[0], rank))
        if len(wanted) == 2 and (first.shape, second.shape) == shapes:  # noqa: PLR2004  # a matrix
            continue
        raise AdapterError(
            f"{adapter.path}: {first.shape} and {second.shape} do not fit {target!r}, which is"
            f" {matrix.shape}"
        )

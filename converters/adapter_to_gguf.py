"""A LoRA adapter to GGUF, as llama.cpp loads it beside its base.

numpy and `gguf` only, for the device's daemon does this after every round. The file can be checked
with `fedpt.adapter_file.require_adapter_fits`.
"""

from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from converters.gguf_output import PlannedTensor, write_gguf
from converters.tensor_names import (
    Architecture,
    architecture_of,
    gguf_names,
    layer_count,
    linear_shapes,
    rotary_heads,
    to_rotary_order,
)
from fedpt.adapters import TENSOR_PREFIX, Adapter, require_base
from fedpt.errors import AdapterError
from fedpt.files import written_aside
from fedpt.gguf_file import BASE_WEIGHTS_KEY, GgufFile, GgufValue, weights_sha256

_FIRST: Final = ".lora_A.weight"
_SECOND: Final = ".lora_B.weight"


def convert_adapter(
    adapter: Adapter, base: GgufFile, target: Path, *, kind: Literal["F32", "F16"] = "F32"
) -> None:
    """Write an adapter as the GGUF file `target`, whole or not at all.

    B's rows of the rotary projections are reordered like the base's own; A is left as it is, for
    ``P (W + B A) = P W + (P B) A``.

    Args:
        adapter: Of the base's own factors, named as PEFT does.
        base: The GGUF file it will be loaded beside; any quantisation of the weights.
        target: The file to write.
        kind: What the factors are stored as.

    Raises:
        WrongBaseError: The adapter was trained on another base.
        AdapterError: It changes a module that the base does not have, or of another shape.
        ModelFileError: The base is of an unsupported family or cannot be read.
        StorageError: The target cannot be written.
    """
    identity = weights_sha256(base)
    require_base("the adapter", adapter.manifest.base_weights, identity)
    architecture = architecture_of(base)
    metadata: dict[str, GgufValue] = {
        "general.architecture": architecture.gguf_name,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(adapter.manifest.alpha),
        BASE_WEIGHTS_KEY: identity,
    }
    plan = _plan(adapter, base, architecture, kind)
    with written_aside(target) as aside:
        write_gguf(aside, metadata, plan)


def _plan(
    adapter: Adapter, base: GgufFile, architecture: Architecture, kind: str
) -> list[PlannedTensor]:
    """Both factors of every module, in the order of the model."""
    shapes = linear_shapes(base)
    names = gguf_names(architecture, layer_count(base))
    changed = {_module(name) for name in adapter.tensors}
    unknown = sorted(changed - shapes.keys())
    if unknown:
        raise AdapterError(f"the base model has no linear layer {unknown[0]!r}")
    plan: list[PlannedTensor] = []
    for module, shape in shapes.items():
        if module not in changed:
            continue
        first = adapter.tensors[f"{TENSOR_PREFIX}{module}{_FIRST}"]
        second = adapter.tensors[f"{TENSOR_PREFIX}{module}{_SECOND}"]
        if (second.shape[0], first.shape[1]) != shape:
            raise AdapterError(
                f"{module}: A {first.shape} and B {second.shape} do not fit {shape} of the base"
            )
        heads = rotary_heads(architecture, base.metadata, module)
        if heads is not None:
            second = to_rotary_order(second, heads)
        plan.append(_planned(f"{names[module]}.weight.lora_a", first, kind))
        plan.append(_planned(f"{names[module]}.weight.lora_b", second, kind))
    return plan


def _module(tensor_name: str) -> str:
    """`base_model.model.lm_head.lora_A.weight` -> `lm_head`."""
    return tensor_name.removeprefix(TENSOR_PREFIX).removesuffix(_FIRST).removesuffix(_SECOND)


def _planned(name: str, values: npt.NDArray[np.float32], kind: str) -> PlannedTensor:
    return PlannedTensor(name, values.shape, kind, lambda: values)

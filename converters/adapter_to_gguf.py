"""A LoRA adapter to GGUF, as llama.cpp loads it beside its base.

numpy and `gguf` only, for the device's daemon does this after every round. The file can be checked
with `fedpt.adapter_file.require_adapter_fits`. The way back is `converters.gguf_to_adapter`.
"""

from pathlib import Path
from typing import Literal

from converters.adapter_factors import (
    Factor,
    module_of,
    require_targets,
    targets_of,
)
from converters.architectures.known import architecture_of
from converters.gguf_output import PlannedTensor, write_gguf
from fedpt.adapters import Adapter, require_base
from fedpt.errors import AdapterError
from fedpt.files import written_aside
from fedpt.gguf_file import BASE_WEIGHTS_KEY, GgufFile, GgufValue, weights_sha256
from fedpt.vocabulary import VOCABULARY_KEY


def convert_adapter(
    adapter: Adapter, base: GgufFile, target: Path, *, kind: Literal["F32", "F16"] = "F32"
) -> None:
    """Write an adapter as the GGUF file `target`, whole or not at all.

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
    metadata: dict[str, GgufValue] = {
        "general.architecture": architecture_of(base).gguf_name,
        "general.type": "adapter",
        "adapter.type": "lora",
        "adapter.lora.alpha": float(adapter.manifest.alpha),
        BASE_WEIGHTS_KEY: identity,
    }
    if VOCABULARY_KEY in base.metadata:
        metadata[VOCABULARY_KEY] = base.metadata[VOCABULARY_KEY]
    plan = _plan(adapter, base, kind)
    with written_aside(target) as aside:
        write_gguf(aside, metadata, plan)


def _plan(adapter: Adapter, base: GgufFile, kind: str) -> list[PlannedTensor]:
    """Both factors of every module, in the order of the model."""
    targets = targets_of(base)
    changed = {module_of(name) for name in adapter.tensors}
    require_targets(base, changed, targets)
    plan: list[PlannedTensor] = []
    for target in targets.values():
        if target.module not in changed:
            continue
        first, second = (adapter.tensors.get(name) for name in target.names)
        if first is None or second is None:
            raise AdapterError(f"{target.module} has no factors {' and '.join(target.names)}")
        if not target.fits(first, second):
            raise AdapterError(
                f"{target.module}: A {first.shape} and B {second.shape} do not fit {target.shape}"
                " of the base"
            )
        first, second = target.to_gguf(first, second)
        plan.append(_planned(f"{target.tensor}.lora_a", first, kind))
        plan.append(_planned(f"{target.tensor}.lora_b", second, kind))
    return plan


def _planned(name: str, values: Factor, kind: str) -> PlannedTensor:
    return PlannedTensor(name, values.shape, kind, lambda: values)

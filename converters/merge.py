"""A base and its adapter as one model: ``W + alpha / r * B A``, tensor by tensor.

What is then written, GGUF or a folder, is a model like any other.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from converters.adapter_factors import Target, module_of, require_targets, targets_of
from converters.architectures.table import Change
from converters.gguf_to_adapter import read_adapter
from converters.hub import local_model
from converters.model_header import header_of
from converters.model_source import SourceModel, SourceTensor, Values
from converters.tensor_names import parts_of
from fedpt.adapters import Adapter, read_peft_folder, require_base
from fedpt.errors import AdapterError
from fedpt.ids import Sha256

_ROWS: Final = 1024
"""At a time, so that the product of the factors is never whole in memory."""


def open_adapter(path: Path, model: SourceModel) -> Adapter:
    """Read an adapter for a model: a PEFT folder, a GGUF file, or a repository on the hub.

    Raises:
        AdapterError: It is missing, damaged, of an unsupported kind, or does not fit.
        WrongBaseError: It was trained on another base.
        ModelFileError: It is neither here nor on the hub, or the model is not supported.
    """
    found = local_model(path)
    if found.is_file():
        return read_adapter(found, header_of(model))
    return read_peft_folder(found, base_weights=model.weights)


def merged(model: SourceModel, adapter: Adapter) -> SourceModel:
    """The model with the adapter in its weights; nothing is read yet.

    Raises:
        WrongBaseError: The adapter was trained on another base.
        AdapterError: It changes a module that the base does not have, or of another shape.
    """
    require_base("the adapter", adapter.manifest.base_weights, model.weights)
    header = header_of(model)
    targets = targets_of(header)
    changed = {module_of(name) for name in adapter.tensors}
    require_targets(header, changed, targets)
    parts = parts_of(model.architecture, model.layers)
    tensors = dict(model.tensors)
    for module in changed:
        update = _update(adapter, targets[module], parts[module][1].change)
        key = f"{module}.weight"
        tensors[key] = replace(tensors[key], load=partial(_load, tensors[key], update))
    return replace(model, tensors=tensors, weights=_identity(model.weights, adapter))


@dataclass(frozen=True, slots=True)
class _Update:
    """What is added to a weight as transformers has it: `left @ right`."""

    left: npt.NDArray[np.float32]
    right: npt.NDArray[np.float32]


def _update(adapter: Adapter, target: Target, change: Change) -> _Update:
    first, second = (adapter.tensors.get(name) for name in target.names)
    if first is None or second is None or not target.fits(first, second):
        raise AdapterError(f"{target.module}: the factors do not fit {target.shape} of the base")
    scale = np.float32(adapter.manifest.scale)
    if target.is_embedding or change is Change.TRANSPOSED:
        return _Update(first.T * scale, second.T)
    return _Update(second * scale, first)


def _load(tensor: SourceTensor, update: _Update) -> Values:
    values = np.array(tensor.load(), np.float32)
    for start in range(0, len(values), _ROWS):
        rows = slice(start, start + _ROWS)
        values[rows] += update.left[rows] @ update.right
    return values


def _identity(base: Sha256, adapter: Adapter) -> Sha256:
    """Of the merged weights: the base's and the adapter's, whatever the base was quantised to."""
    digest = hashlib.sha256(f"{base} {adapter.manifest.alpha} {adapter.manifest.rank}\n".encode())
    tensors: Mapping[str, npt.NDArray[np.float32]] = adapter.tensors
    for name in sorted(tensors):
        digest.update(f"{name} {tensors[name].shape}\n".encode())
        digest.update(np.ascontiguousarray(tensors[name], "<f4").data)
    return Sha256(digest.hexdigest())

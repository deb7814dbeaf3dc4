"""A model to convert, wherever it lies: a transformers folder or a GGUF file, seen as one thing.

Tensors have transformers' names, order and values, and are read one by one when their turn comes.
Everything that contradicts the configuration is refused here, before anything is written.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converters.architectures.known import architecture_in, architecture_of
from converters.architectures.table import HEAD, Architecture, Part
from converters.checkpoint import Checkpoint, StoredTensor, open_checkpoint
from converters.config_values import count, is_tied
from converters.gguf_tensors import read_values
from converters.hyperparameters import config_to_metadata, metadata_to_config
from converters.rotary_settings import FACTOR_TENSORS, factor_tensors
from converters.tensor_changes import changed_shape, from_gguf
from converters.tensor_names import heads_of, layer_count, parts_of, require_shape, sizes_of
from fedpt.errors import ModelFileError
from fedpt.gguf_file import WEIGHTS_KEY, GgufFile, TensorInfo, read_gguf, weights_sha256
from fedpt.ids import Sha256, is_sha256

Values = npt.NDArray[np.floating]

_RECOMPUTED: Final = (".rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Old folders store them; they follow from the configuration."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """A tensor as transformers has it: its shape, and how to get its values."""

    shape: tuple[int, ...]
    load: Callable[[], Values]


@dataclass(frozen=True, slots=True)
class SourceModel:
    """A model, before anything of it is read but headers."""

    name: str
    architecture: Architecture
    config: Mapping[str, Any]  # Any: config.json is free-form
    tensors: Mapping[str, SourceTensor]
    """By their names in transformers, in the order of the model."""
    weights: Sha256
    """Which weights these are: see `fedpt.gguf_file.WEIGHTS_KEY`."""
    origin: Path | GgufFile
    """Where the tokenizer is."""

    @property
    def layers(self) -> int:
        """How many layers it has."""
        return count(self.config, self.architecture, "block_count")

    @property
    def row_count(self) -> int:
        """Rows of the embedding matrix, which may be more than there are tokens."""
        return self.tensors[f"{self.architecture.embedding}.weight"].shape[0]


def open_source(path: Path, *, name: str) -> SourceModel:
    """Open a transformers folder or a GGUF file.

    Args:
        path: The folder or the file.
        name: What people call a folder's model; a GGUF file says it itself.

    Raises:
        ModelFileError: It is missing, damaged, of an unsupported family, or contradicts itself.
    """
    if not path.is_file():
        return _folder_model(open_checkpoint(path, name=name))
    file = read_gguf(path)
    if file.metadata.get("general.type", "model") != "model":
        raise ModelFileError(f"{path} is no model but: {file.metadata['general.type']}")
    return gguf_model(file)


def gguf_model(file: GgufFile) -> SourceModel:
    """A GGUF file's model.

    Raises:
        ModelFileError: It is of an unsupported family, or contradicts itself.
    """
    architecture = architecture_of(file)
    factors = {
        name: read_values(file.path, file.tensors[name])
        for name in FACTOR_TENSORS
        if name in file.tensors
    }
    config = metadata_to_config(file, architecture, factors)
    return SourceModel(
        name=file.name,
        architecture=architecture,
        config=config,
        tensors=_gguf_tensors(file, architecture, config),
        weights=weights_sha256(file),
        origin=file,
    )


def _gguf_tensors(
    file: GgufFile, architecture: Architecture, config: Mapping[str, Any]
) -> dict[str, SourceTensor]:
    sizes = sizes_of(architecture, file.metadata, int(config["vocab_size"]))
    tensors: dict[str, SourceTensor] = {}
    known = set(FACTOR_TENSORS)
    for module, (name, part) in parts_of(architecture, layer_count(file)).items():
        for kind in _kinds(module, part, config, architecture):
            info = file.tensors.get(f"{name}.{kind}")
            if info is None:
                raise ModelFileError(f"{file.path} has no {name}.{kind}")
            require_shape(f"{file.path}: {info.name}", info.shape, part, kind=kind, sizes=sizes)
            known.add(info.name)
            heads = heads_of(architecture, file.metadata, part)
            tensors[f"{module}.{kind}"] = SourceTensor(
                changed_shape(info.shape, part.change), partial(_load, file.path, info, part, heads)
            )
    unknown = sorted(file.tensors.keys() - known)
    if unknown:
        raise ModelFileError(f"{file.path}: tensor {unknown[0]!r} is not known here")
    return tensors


def _load(path: Path, info: TensorInfo, part: Part, heads: int | None) -> Values:
    return from_gguf(read_values(path, info), part.change, heads)


def _folder_model(checkpoint: Checkpoint) -> SourceModel:
    architecture = architecture_in(checkpoint.config)
    tensors = _tensors_of_family(checkpoint, architecture)
    try:
        _require_fit(checkpoint, architecture, tensors)
    except ModelFileError as error:
        raise ModelFileError(f"{checkpoint.folder}: {error}") from error
    layers = count(checkpoint.config, architecture, "block_count")
    names = {module: name for module, (name, _) in parts_of(architecture, layers).items()}
    stated = checkpoint.stated.get(WEIGHTS_KEY, "")
    weights = Sha256(stated) if is_sha256(stated) else _weights_identity(tensors, names)
    return SourceModel(
        name=checkpoint.name,
        architecture=architecture,
        config=checkpoint.config,
        tensors={key: SourceTensor(one.shape, one.read) for key, one in tensors.items()},
        weights=weights,
        origin=checkpoint.folder,
    )


def _tensors_of_family(
    checkpoint: Checkpoint, architecture: Architecture
) -> dict[str, StoredTensor]:
    """The tensors to convert, in the order of the model.

    Raises:
        ModelFileError: A tensor is missing, or there is one that the family does not have.
    """
    config = checkpoint.config
    parts = parts_of(architecture, count(config, architecture, "block_count"))
    dropped = {f"{HEAD}.weight"} if is_tied(config, architecture) else set()
    root = architecture.embedding.partition(".")[0]
    rooted = any(key.startswith(f"{root}.") for key in checkpoint.tensors)
    stored = {
        key if rooted or key.startswith(f"{HEAD}.") else f"{root}.{key}": tensor
        for key, tensor in checkpoint.tensors.items()
        if key not in dropped and not key.endswith(_RECOMPUTED)
    }
    wanted = [
        f"{module}.{kind}"
        for module, (_, part) in parts.items()
        for kind in _kinds(module, part, config, architecture)
    ]
    for key in wanted:
        if key not in stored:
            raise ModelFileError(f"{checkpoint.folder}: tensor {key} is missing")
    unknown = sorted(stored.keys() - set(wanted))
    if unknown:
        raise ModelFileError(
            f"{checkpoint.folder}: tensor {unknown[0]!r} is no part of a"
            f" {architecture.transformers_name} with this config.json"
        )
    return {key: stored[key] for key in wanted}


def _kinds(
    module: str, part: Part, config: Mapping[str, Any], architecture: Architecture
) -> tuple[str, ...]:
    """Which tensors a module has: `weight`, `bias`, or none if it is a tied head."""
    if module == HEAD and is_tied(config, architecture):
        return ()
    with_bias = part.bias == "always" or (part.bias != "" and bool(config.get(part.bias)))
    return ("weight", "bias") if with_bias else ("weight",)


def _require_fit(
    checkpoint: Checkpoint, architecture: Architecture, tensors: Mapping[str, StoredTensor]
) -> None:
    """Refuse tensors of other shapes than the configuration says."""
    embedding = f"{architecture.embedding}.weight"
    match tensors[embedding].shape:
        case (rows, _):
            pass
        case shape:
            raise ModelFileError(f"{embedding} is {shape}, not a matrix")
    if checkpoint.config.get("vocab_size", rows) != rows:
        raise ModelFileError(
            f"config.json: vocab_size is {checkpoint.config['vocab_size']}, but {embedding} has"
            f" {rows} rows"
        )
    metadata = config_to_metadata(checkpoint.config, architecture, row_count=rows)
    factor_tensors(checkpoint.config, architecture)  # refuses settings that make none
    sizes = sizes_of(architecture, metadata, rows)
    parts = parts_of(architecture, count(checkpoint.config, architecture, "block_count"))
    for key, tensor in tensors.items():
        module, _, kind = key.rpartition(".")
        _, part = parts[module]
        require_shape(key, changed_shape(tensor.shape, part.change), part, kind=kind, sizes=sizes)


def _weights_identity(tensors: Mapping[str, StoredTensor], names: Mapping[str, str]) -> Sha256:
    """Hash of the tensors as the source stores them: before reordering, before quantisation."""
    digest = hashlib.sha256()
    by_name = {}
    for key, tensor in tensors.items():
        module, _, kind = key.rpartition(".")
        by_name[f"{names[module]}.{kind}"] = tensor
    for name, tensor in sorted(by_name.items()):
        digest.update(f"{name} {tensor.shape} {tensor.dtype}\n".encode())
        digest.update(tensor.read_bytes().data)
    return Sha256(digest.hexdigest())

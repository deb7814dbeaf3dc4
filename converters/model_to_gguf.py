"""A model to GGUF: from a transformers folder, or a GGUF file in another quantisation.

Decides what goes into the file. Names are in `converters.tensor_names`, reading in
`converters.checkpoint`, writing in `converters.gguf_output` and `converters.quantise`, the
tokenizer in `converters.tokenizer`.
"""

import hashlib
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from converters.checkpoint import Checkpoint, StoredTensor, open_checkpoint
from converters.gguf_output import FILE_TYPES, PlannedTensor, tensor_kind, write_gguf
from converters.hub import local_model
from converters.quantise import quantise, require_kind
from converters.tensor_names import (
    Architecture,
    architecture_named,
    gguf_names,
    rotary_heads,
    to_rotary_order,
)
from converters.token_ids import require_same_token_ids
from converters.tokenizer import tokenizer_metadata
from fedpt.errors import ModelFileError
from fedpt.files import written_aside
from fedpt.gguf_file import WEIGHTS_KEY, GgufValue, read_gguf, weights_sha256
from fedpt.ids import Sha256
from fedpt.progress import OnProgress, Progress, ignore_progress

_QUANTISATION_VERSION: Final = 2  # of ggml's block formats
_EMBEDDING: Final = "model.embed_tokens.weight"
_HEAD: Final = "lm_head.weight"
_RECOMPUTED: Final = ".rotary_emb.inv_freq"  # old folders store it; it follows from the config
_DEFAULT_ROPE_BASE: Final = 10_000.0  # where a config does not say


def convert_model(
    source: Path,
    target: Path,
    *,
    kind: str = "F16",
    pre: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> None:
    """Write `source` as the GGUF file `target`, whole or not at all.

    The file states `WEIGHTS_KEY`, a hash of the source's tensors, so that all quantisations of one
    model are known to be of one model.

    Args:
        source: A transformers folder, a GGUF file, or the name of a repository on the hub.
        target: The file to write.
        kind: F32, F16, Q8_0, or any other quantisation of libllama's, such as Q4_0.
        pre: See `converters.tokenizer.tokenizer_metadata`.
        on_progress: Told of every tensor.

    Raises:
        ModelFileError: The source is missing, damaged or of an unsupported family, or its
            tokenizer would give other ids in llama.cpp.
        UsageError: There is no such kind.
        StorageError: The target cannot be written.
    """
    require_kind(kind)
    found = local_model(source)
    if found.is_file():
        _convert_gguf(found, target, kind)
        return
    checkpoint = open_checkpoint(found, name=source.resolve().name)
    with written_aside(target) as aside:
        if kind in FILE_TYPES:
            _write_folder(checkpoint, aside, kind, pre=pre, on_progress=on_progress)
            return
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fedpt-convert-") as workspace:
            # F32 holds every source exactly; the disk space is needed for a moment only
            lossless = Path(workspace) / "lossless.gguf"
            _write_folder(checkpoint, lossless, "F32", pre=pre, on_progress=on_progress)
            quantise(lossless, aside, kind, weights=weights_sha256(read_gguf(lossless)))


def _convert_gguf(source: Path, target: Path, kind: str) -> None:
    """Quantise a GGUF file again, with the identity of its weights as they are."""
    file = read_gguf(source)
    if file.metadata.get("general.type", "model") != "model":
        raise ModelFileError(f"{source} is no model but: {file.metadata['general.type']}")
    with written_aside(target) as aside:
        quantise(source, aside, kind, weights=weights_sha256(file))


def _write_folder(
    checkpoint: Checkpoint, path: Path, kind: str, *, pre: str | None, on_progress: OnProgress
) -> None:
    """Write a transformers folder at `path`, then prove that the tokenizer came over."""
    architecture = architecture_named(_architecture_name(checkpoint.config))
    tensors = _tensors_by_module(checkpoint, architecture)
    names = gguf_names(architecture, _layer_count(checkpoint.config, architecture))
    identity = _weights_identity({_gguf_name(key, names): t for key, t in tensors.items()})
    metadata = {
        **_hyperparameters(checkpoint, architecture),
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": _QUANTISATION_VERSION,
        WEIGHTS_KEY: identity,
        **tokenizer_metadata(checkpoint.folder, row_count=_row_count(checkpoint), pre=pre),
    }
    plan = [
        PlannedTensor(
            name=_gguf_name(key, names),
            shape=tensor.shape,
            kind=tensor_kind(tensor.shape, kind),
            load=partial(_load, tensor, rotary_heads(architecture, metadata, _module(key))),
        )
        for key, tensor in tensors.items()
    ]
    write_gguf(path, metadata, plan, on_progress)
    on_progress(Progress(len(plan), len(plan), "comparing token ids"))
    require_same_token_ids(path, checkpoint.folder / "tokenizer.json")


def _architecture_name(config: Mapping[str, Any]) -> str:
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else "none stated"


def _layer_count(config: Mapping[str, Any], architecture: Architecture) -> int:
    return int(_required(config, architecture.numbers["block_count"]))


def _tensors_by_module(
    checkpoint: Checkpoint, architecture: Architecture
) -> dict[str, StoredTensor]:
    """The tensors to write, by their name in transformers, in the order of the model.

    Raises:
        ModelFileError: A tensor is missing, or there is one that GGUF has no name for.
    """
    modules = gguf_names(architecture, _layer_count(checkpoint.config, architecture))
    dropped = {_HEAD} if checkpoint.config.get("tie_word_embeddings") else set()
    stored = {
        key: tensor
        for key, tensor in checkpoint.tensors.items()
        if key not in dropped and not key.endswith(_RECOMPUTED)
    }
    for module in modules:
        key = f"{module}.weight"
        if key not in dropped and key not in stored:
            raise ModelFileError(f"{checkpoint.folder}: tensor {key} is missing")
    order = {f"{module}.{part}": None for module in modules for part in ("weight", "bias")}
    unknown = sorted(stored.keys() - order.keys())
    if unknown:
        raise ModelFileError(
            f"{checkpoint.folder}: tensor {unknown[0]!r} is no part of a"
            f" {architecture.transformers_name}"
        )
    return {key: stored[key] for key in order if key in stored}


def _hyperparameters(checkpoint: Checkpoint, architecture: Architecture) -> dict[str, GgufValue]:
    config, key = checkpoint.config, architecture.key
    _require_supported(checkpoint)
    metadata: dict[str, GgufValue] = {
        "general.architecture": architecture.gguf_name,
        "general.type": "model",
        "general.name": checkpoint.name,
    }
    for name, config_key in architecture.numbers.items():
        metadata[key(name)] = int(_required(config, config_key))
    for name, config_key in architecture.fractions.items():
        metadata[key(name)] = float(_required(config, config_key))
    heads = int(_required(config, architecture.numbers["attention.head_count"]))
    hidden = int(_required(config, architecture.numbers["embedding_length"]))
    head_size = int(config.get("head_dim") or hidden // heads)
    metadata[key("attention.key_length")] = head_size
    metadata[key("attention.value_length")] = head_size
    metadata[key("rope.dimension_count")] = head_size
    metadata[key("rope.freq_base")] = float(_rope(config).get("rope_theta", _DEFAULT_ROPE_BASE))
    metadata[key("vocab_size")] = _row_count(checkpoint)
    return metadata


def _row_count(checkpoint: Checkpoint) -> int:
    """Rows of the embedding matrix, which may be more than there are tokens."""
    match checkpoint.tensors[_EMBEDDING].shape:
        case (rows, _):
            return rows
        case shape:
            raise ModelFileError(f"{checkpoint.folder}: {_EMBEDDING} is {shape}, not a matrix")


def _require_supported(checkpoint: Checkpoint) -> None:
    """Refuse what the file could not say, rather than write a model that computes otherwise."""
    config = checkpoint.config
    rope = _rope(config)
    rope_type = rope.get("rope_type") or rope.get("type") or "default"
    if rope_type != "default":
        raise ModelFileError(f"{checkpoint.folder}: rope_type {rope_type!r} is not supported yet")
    if config.get("hidden_act", "silu") != "silu":
        raise ModelFileError(
            f"{checkpoint.folder}: hidden_act {config['hidden_act']!r} is not supported"
        )


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary settings, which older configurations have at the top and in `rope_scaling`."""
    rope = {"rope_theta": config["rope_theta"]} if config.get("rope_theta") else {}
    return rope | (config.get("rope_scaling") or {}) | (config.get("rope_parameters") or {})


def _required(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelFileError(f"config.json: {key} is {value!r}, a number was expected")
    return value


def _weights_identity(tensors: Mapping[str, StoredTensor]) -> Sha256:
    """Hash of the tensors as the source stores them: before reordering, before quantisation."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.shape} {tensor.dtype}\n".encode())
        digest.update(tensor.read_bytes().data)
    return Sha256(digest.hexdigest())


def _load(tensor: StoredTensor, heads: int | None) -> npt.NDArray[np.floating]:
    values = tensor.read()
    return values if heads is None else to_rotary_order(values, heads)


def _module(key: str) -> str:
    """`lm_head.weight` -> `lm_head`."""
    return key.rpartition(".")[0]


def _gguf_name(key: str, names: Mapping[str, str]) -> str:
    """`model.layers.0.self_attn.q_proj.weight` -> `blk.0.attn_q.weight`."""
    module, _, part = key.rpartition(".")
    return f"{names[module]}.{part}"

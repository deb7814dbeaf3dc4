"""A model to GGUF: from a transformers folder, or a GGUF file in another quantisation.

Decides what goes into the file. Names are in `converters.tensor_names`, reading in
`converters.model_source`, writing in `converters.gguf_output` and `converters.quantise`, the
tokenizer in `converters.tokenizer`.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from converters.architectures.table import Part
from converters.gguf_output import FILE_TYPES, PlannedTensor, tensor_kind, write_gguf
from converters.hub import local_model
from converters.hyperparameters import config_to_metadata
from converters.model_source import SourceModel, SourceTensor, Values, open_source
from converters.quantise import quantise, require_kind
from converters.rotary_settings import Factors, factor_tensors
from converters.tensor_changes import changed_shape, to_gguf
from converters.tensor_names import heads_of, parts_of
from converters.token_ids import require_same_token_ids
from converters.tokenizer import tokenizer_metadata
from fedpt.errors import ModelFileError
from fedpt.files import written_aside
from fedpt.gguf_file import WEIGHTS_KEY, GgufValue, read_gguf, weights_sha256
from fedpt.progress import OnProgress, Progress, ignore_progress
from fedpt.vocabulary import VOCABULARY_KEY, vocabulary_in

_QUANTISATION_VERSION: Final = 2  # of ggml's block formats
_TOKENIZER_PREFIX: Final = "tokenizer."


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
    model = open_source(found, name=source.resolve().name)
    write_model(model, target, kind=kind, pre=pre, on_progress=on_progress)


def write_model(
    model: SourceModel,
    target: Path,
    *,
    kind: str,
    pre: str | None = None,
    on_progress: OnProgress = ignore_progress,
) -> None:
    """Write an opened model as the GGUF file `target`, whole or not at all.

    Raises:
        ModelFileError: See `convert_model`.
        UsageError: There is no such kind.
        StorageError: The target cannot be written.
    """
    require_kind(kind)
    with written_aside(target) as aside:
        if kind in FILE_TYPES:
            _write(model, aside, kind, pre=pre, on_progress=on_progress)
            return
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fedpt-convert-") as workspace:
            # F32 holds every source exactly; the disk space is needed for a moment only
            lossless = Path(workspace) / "lossless.gguf"
            _write(model, lossless, "F32", pre=pre, on_progress=on_progress)
            quantise(lossless, aside, kind, weights=weights_sha256(read_gguf(lossless)))


def _convert_gguf(source: Path, target: Path, kind: str) -> None:
    """Quantise a GGUF file again, with the identity of its weights as they are."""
    file = read_gguf(source)
    if file.metadata.get("general.type", "model") != "model":
        raise ModelFileError(f"{source} is no model but: {file.metadata['general.type']}")
    with written_aside(target) as aside:
        quantise(source, aside, kind, weights=weights_sha256(file))


def _write(
    model: SourceModel, path: Path, kind: str, *, pre: str | None, on_progress: OnProgress
) -> None:
    """Write a model at `path`, then prove that the tokenizer came over."""
    architecture = model.architecture
    metadata: dict[str, GgufValue] = {
        "general.architecture": architecture.gguf_name,
        "general.type": "model",
        "general.name": model.name,
        **config_to_metadata(model.config, architecture, row_count=model.row_count),
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": _QUANTISATION_VERSION,
        WEIGHTS_KEY: model.weights,
        **_tokenizer(model, pre),
    }
    metadata[VOCABULARY_KEY] = vocabulary_in(metadata, model.name).sha256
    plan = _factor_plan(model) + _plan(model, metadata, kind)
    write_gguf(path, metadata, plan, on_progress)
    if isinstance(model.origin, Path):
        on_progress(Progress(len(plan), len(plan), "comparing token ids"))
        require_same_token_ids(path, model.origin / "tokenizer.json")


def _tokenizer(model: SourceModel, pre: str | None) -> dict[str, GgufValue]:
    if isinstance(model.origin, Path):
        return tokenizer_metadata(
            model.origin, row_count=model.row_count, pre=pre, rowless=model.architecture.rowless
        )
    metadata = model.origin.metadata
    return {key: value for key, value in metadata.items() if key.startswith(_TOKENIZER_PREFIX)}


def _plan(model: SourceModel, metadata: dict[str, GgufValue], kind: str) -> list[PlannedTensor]:
    """Every tensor of the model, in its order."""
    parts = parts_of(model.architecture, model.layers)
    plan: list[PlannedTensor] = []
    for key, tensor in model.tensors.items():
        module, _, which = key.rpartition(".")
        name, part = parts[module]
        shape = changed_shape(tensor.shape, part.change)
        heads = heads_of(model.architecture, metadata, part)
        load = partial(_load, tensor, part, heads)
        plan.append(PlannedTensor(f"{name}.{which}", shape, tensor_kind(shape, kind), load))
    return plan


def _load(tensor: SourceTensor, part: Part, heads: int | None) -> Values:
    return to_gguf(tensor.load(), part.change, heads)


def _factor_plan(model: SourceModel) -> list[PlannedTensor]:
    """The rotary factors, which transformers has in its configuration."""

    def plan(name: str, factors: Factors) -> PlannedTensor:
        return PlannedTensor(name, factors.shape, "F32", lambda: factors.astype(np.float32))

    factors = factor_tensors(model.config, model.architecture)
    return [plan(name, values) for name, values in factors.items()]

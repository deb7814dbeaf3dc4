"""A model as a transformers folder: configuration, weights, tokenizer, chat template.

The inverse of `converters.model_to_gguf`. Quantised weights are dequantised as llama.cpp does it,
so the folder is the very model that a board serves.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from converters.checkpoint_output import ITEM_BYTES, TensorToWrite, write_safetensors
from converters.hub import local_model
from converters.model_source import SourceModel, open_source
from converters.output_folder import require_replaceable
from converters.token_ids import require_same_token_ids
from converters.tokenizer import write_tokenizer_files
from fedpt.errors import UsageError
from fedpt.files import folder_written_aside, write_json
from fedpt.gguf_file import WEIGHTS_KEY
from fedpt.progress import OnProgress, Progress, ignore_progress

_DTYPES: Final = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}

_TOKENIZER_FILES: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "chat_template.jinja", "generation_config.json", "tokenizer.model", "vocab.json", "merges.txt",
)  # fmt: skip


def convert_to_transformers(
    source: Path, folder: Path, *, kind: str = "F32", on_progress: OnProgress = ignore_progress
) -> None:
    """Write `source` as a transformers folder, whole or not at all.

    Args:
        source: A GGUF file, a transformers folder, or the name of a repository on the hub.
        folder: The folder to write; an older model of that name is replaced.
        kind: F32, which holds every GGUF type exactly, F16 or BF16.
        on_progress: Told of every tensor.

    Raises:
        ModelFileError: The source is missing, damaged or of an unsupported family, or its
            tokenizer would give other ids in transformers.
        UsageError: There is no such kind, or the folder holds something else.
        StorageError: The folder cannot be written.
    """
    model = open_source(local_model(source), name=source.resolve().name)
    write_folder(model, folder, kind=kind, on_progress=on_progress)


def write_folder(
    model: SourceModel, folder: Path, *, kind: str, on_progress: OnProgress = ignore_progress
) -> None:
    """Write an opened model as a transformers folder, whole or not at all.

    Raises:
        ModelFileError: See `convert_to_transformers`.
        UsageError: There is no such kind, or the folder holds something else.
        StorageError: The folder cannot be written.
    """
    if kind not in ITEM_BYTES:
        raise UsageError(f"transformers folders are of type {', '.join(ITEM_BYTES)}, not {kind!r}")
    require_replaceable(folder, "config.json")
    tensors = {key: TensorToWrite(one.shape, one.load) for key, one in model.tensors.items()}
    with folder_written_aside(folder.absolute()) as aside:
        write_json(aside / "config.json", _config(model.config, kind))
        metadata = {"format": "pt", WEIGHTS_KEY: model.weights}
        write_safetensors(
            aside / "model.safetensors",
            tensors,
            dtype=kind,
            metadata=metadata,
            on_progress=on_progress,
        )
        _write_tokenizer(model, aside, on_progress)


def _config(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """What transformers reads; `torch_dtype` is what older versions call `dtype`."""
    kept = {key: value for key, value in config.items() if key != "quantization_config"}
    return kept | {"dtype": _DTYPES[kind], "torch_dtype": _DTYPES[kind]}


def _write_tokenizer(model: SourceModel, folder: Path, on_progress: OnProgress) -> None:
    """A folder's own tokenizer as it is; a GGUF file's made anew, and proved."""
    if isinstance(model.origin, Path):
        for name in _TOKENIZER_FILES:
            if (model.origin / name).is_file():
                shutil.copyfile(model.origin / name, folder / name)
        return
    write_tokenizer_files(model.origin, folder)
    on_progress(Progress(1, 1, "comparing token ids"))
    require_same_token_ids(model.origin.path, folder / "tokenizer.json")

"""A small model with its adapter merged into its weights, as GGUF of the same kind."""

from pathlib import Path
from typing import Final

import llama_cpp

from benchmarks.adapter_in_torch import load_tuned
from converters.gguf_to_torch import write_transformers_folder
from converters.model_to_gguf import convert_model
from fedpt.gguf_file import read_gguf

_KIND_PREFIX: Final = "LLAMA_FTYPE_MOSTLY_"


def write_merged(small: Path, adapter: Path, folder: Path) -> Path:
    """Dequantise, merge, and write in `folder` with the small model's own quantisation."""
    merged = load_tuned(small, adapter).merge_and_unload()
    write_transformers_folder(merged, small, folder / "merged")
    target = folder / "merged.gguf"
    convert_model(folder / "merged", target, kind=_kind_of(small))
    return target


def _kind_of(model: Path) -> str:
    number = read_gguf(model).metadata.get("general.file_type", 0)
    kinds = {
        value: name.removeprefix(_KIND_PREFIX)
        for name, value in vars(llama_cpp).items()
        if name.startswith(_KIND_PREFIX)
    }
    return kinds.get(number, "F32") if isinstance(number, int) else "F32"

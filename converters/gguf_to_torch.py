"""A GGUF file as a torch model: the very weights that llama.cpp serves, for training on a device.

Weights are dequantised as llama.cpp does it, so an adapter is trained on what it will meet.
transformers can read GGUF too, slower and with its own mapping; this is ours, the inverse of
`converters.model_to_gguf`, and proved against llama.cpp's logits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from converters.architectures.table import HEAD
from converters.empty_model import empty_model
from converters.model_source import SourceModel, gguf_model
from converters.tokenizer import write_tokenizer_files
from fedpt.errors import ModelFileError
from fedpt.files import folder_written_aside
from fedpt.gguf_file import read_gguf


def load_causal_lm(path: Path, *, dtype: torch.dtype = torch.float32) -> Any:  # Any: no types
    """Load a GGUF model for training or evaluation, in `eval` mode.

    Args:
        path: A GGUF file of a supported family, in any quantisation.
        dtype: What the weights are kept in; llama.cpp computes in about float32.

    Returns:
        A model of the family's own class, such as `LlamaForCausalLM`. Its head is the embedding
        itself where the file has no `output`.

    Raises:
        ModelFileError: The file is missing, damaged, or of a kind that is not supported.
    """
    source = gguf_model(read_gguf(path))
    model = empty_model(source, str(path))
    try:
        model.load_state_dict(_state(source, dtype), assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"{path} does not fit its own header: {reason}") from error
    model.tie_weights()
    return model.eval()


def write_transformers_folder(model: Any, gguf: Path, folder: Path) -> None:
    """Write a model as a transformers folder, whole or not at all.

    Args:
        model: The model.
        gguf: The file whose tokenizer goes with it.
        folder: Where; an older folder of that name is replaced.

    Raises:
        ModelFileError: The file's tokenizer is of a kind that is not supported.
        StorageError: The folder cannot be written.
    """
    file = read_gguf(gguf)
    with folder_written_aside(folder) as aside, _without_progress_bar():
        model.save_pretrained(aside)
        write_tokenizer_files(file, aside)


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing on stderr; progress is drawn by command lines only."""
    active = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if active:
            transformers_logging.enable_progress_bar()


def _state(source: SourceModel, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every tensor that the file has, by its name in transformers."""
    state = {
        key: torch.from_numpy(tensor.load()).to(dtype).contiguous()
        for key, tensor in source.tensors.items()
    }
    embedding = state[f"{source.architecture.embedding}.weight"]
    return {f"{HEAD}.weight": embedding} | state  # a tied head is in no file

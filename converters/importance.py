"""How much each column of a model's matrices matters, measured on calibration text.

libllama's quantisers take care of columns by the mean square of what is multiplied with them
(https://github.com/ggml-org/llama.cpp/blob/master/tools/imatrix/README.md); here torch measures it,
with hooks on the linear layers. `converters.quantise` hands the result to libllama.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch

from converters.architectures.known import architecture_of
from converters.gguf_to_torch import load_causal_lm
from converters.tensor_names import layer_count, parts_of
from converters.text_windows import read_text, window_of, windows
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import DataFileError
from fedpt.gguf_file import GgufFile
from fedpt.progress import OnProgress, Progress, ignore_progress

_FEWEST_TOKENS: Final = 64  # fewer say nothing of a column
_FLOOR: Final = 1e-8  # of the mean: a column that was never used still may be


def importance_of(
    file: GgufFile, text: Path, on_progress: OnProgress = ignore_progress
) -> dict[str, npt.NDArray[np.float32]]:
    """Mean squares of the inputs of every linear layer within the layers.

    Args:
        file: A model of a supported family, best unquantised. It is loaded whole, as float32.
        text: A text file such as the model will read, in its languages.
        on_progress: Told of every window of the text.

    Returns:
        By the matrix's name in GGUF, one number a column. All are above zero.

    Raises:
        DataFileError: The text is missing, no UTF-8, or too short.
        ModelFileError: The model cannot be used.
    """
    with LlamaModel(file.path, vocabulary_only=True) as tokenizer:
        tokens = tokenizer.tokenize(read_text(text), special=False)
        begin = tokenizer.begin_token
    if len(tokens) < _FEWEST_TOKENS:
        raise DataFileError(f"{text} has {len(tokens)} tokens; calibration needs {_FEWEST_TOKENS}")
    model = load_causal_lm(file.path)
    return _measured(
        model, _matrices(file), list(windows(tokens, window_of(file), begin=begin)), on_progress
    )


def _matrices(file: GgufFile) -> dict[str, str]:
    """Module path to the matrix's name in GGUF."""
    parts = parts_of(architecture_of(file), layer_count(file))
    return {module: f"{name}.weight" for module, (name, part) in parts.items() if part.linear}


def _measured(
    model: Any,  # Any: transformers has no types
    names: Mapping[str, str],
    texts: Sequence[Sequence[int]],
    on_progress: OnProgress,
) -> dict[str, npt.NDArray[np.float32]]:
    sums: dict[str, torch.Tensor] = {}
    with _watched(model, names, sums), torch.no_grad():
        for place, text in enumerate(texts):
            on_progress(Progress(place, len(texts), "calibrating"))
            model(torch.tensor([text]), use_cache=False)
    on_progress(Progress(len(texts), len(texts), "calibrating"))
    count = sum(map(len, texts))
    return {name: _columns(total / count) for name, total in sums.items()}


@contextmanager
def _watched(model: Any, names: Mapping[str, str], sums: dict[str, torch.Tensor]) -> Iterator[None]:
    """While the block runs, `sums` grows by the square of every input."""
    modules = dict(model.named_modules())
    hooks = []

    def watch(name: str) -> Any:  # Any: torch's own type of hook
        def add(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            squares = inputs[0].detach().float().square().flatten(0, -2).sum(0, dtype=torch.float64)
            sums[name] = sums[name] + squares if name in sums else squares

        return add

    try:
        for module, name in names.items():
            hooks.append(modules[module].register_forward_pre_hook(watch(name)))
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _columns(means: torch.Tensor) -> npt.NDArray[np.float32]:
    """As libllama takes them: a weight of zero would let a column go anywhere."""
    columns = means.clamp_min(float(means.mean()) * _FLOOR).clamp_min(
        torch.finfo(torch.float32).tiny
    )
    return np.ascontiguousarray(columns.numpy().astype(np.float32))

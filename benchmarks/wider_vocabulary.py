"""Models with more tokens than they have: the same model, and embeddings of made-up tokens.

Bytes on the wire depend on how wide a vocabulary is, not on what the tokens mean. Each added token
is like a real one drawn at random, half as far from the middle: where that one is likely it is in
the way of the certificate, and it is seldom the likeliest.
"""

from pathlib import Path
from typing import Final

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_to_byte_shape

from converters.gguf_output import PlannedTensor, write_gguf
from fedpt.gguf_file import GgufFile, GgufValue, TensorInfo, read_gguf
from fedpt.proxy_tuning import Logits

_WIDE: Final = ("token_embd.weight", "output.weight")
_STRENGTH: Final = np.float32(0.5)
_UNUSED: Final = 5
"""llama.cpp's type of tokens that no text contains."""


def write_wider(source: Path, target: Path, *, tokens: int) -> None:
    """Write a model again in float16, with so many tokens in all."""
    file = read_gguf(source)
    write_gguf(
        target,
        _metadata(file, tokens),
        [_planned(file, tensor, tokens) for tensor in file.tensors.values()],
    )


def _metadata(file: GgufFile, tokens: int) -> dict[str, GgufValue]:
    metadata = dict(file.metadata)
    spelt = _list(metadata, "tokenizer.ggml.tokens")
    added = tokens - len(spelt)
    more = [f"<|made-up-{number}|>" for number in range(added)]
    metadata["tokenizer.ggml.tokens"] = [*spelt, *more]
    metadata["tokenizer.ggml.token_type"] = [
        *_list(metadata, "tokenizer.ggml.token_type"),
        *[_UNUSED] * added,
    ]
    metadata[f"{file.architecture}.vocab_size"] = tokens
    metadata["general.file_type"] = 1
    return metadata


def _list(metadata: dict[str, GgufValue], key: str) -> list[GgufValue]:
    value = metadata[key]
    assert isinstance(value, list)  # of every tokenizer
    return value


def _planned(file: GgufFile, tensor: TensorInfo, tokens: int) -> PlannedTensor:
    rows, *rest = tensor.shape
    shape = (tokens, *rest) if tensor.name in _WIDE else tensor.shape
    kind = "F16" if len(shape) > 1 else "F32"

    def load() -> Logits:
        values = _values(file.path, tensor)
        if shape == tensor.shape:
            return values
        like = np.random.default_rng(0).integers(0, rows, tokens - rows)  # the same for all models
        middle = values.mean(axis=0)
        return np.concatenate([values, middle + _STRENGTH * (values[like] - middle)])

    return PlannedTensor(tensor.name, shape, kind, load)


def _values(path: Path, tensor: TensorInfo) -> Logits:
    kind = GGMLQuantizationType(tensor.ggml_type)
    raw = np.fromfile(path, np.uint8, tensor.size_bytes, offset=tensor.offset)
    values = dequantize(raw.reshape(quant_shape_to_byte_shape(tensor.shape, kind)), kind)
    return np.asarray(values, np.float32).reshape(tensor.shape)

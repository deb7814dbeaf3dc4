"""A GGUF file as a torch model: the very weights that llama.cpp serves, for training on a device.

Weights are dequantised as llama.cpp does it, so an adapter is trained on what it will meet.
transformers can read GGUF too, slower and with its own mapping; this is ours, the inverse of
`converters.model_to_gguf`, and proved against llama.cpp's logits.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_to_byte_shape
from huggingface_hub.errors import StrictDataclassError
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.utils import logging as transformers_logging

from converters.tensor_names import (
    Architecture,
    architecture_of,
    from_rotary_order,
    gguf_names,
    layer_count,
    rotary_heads,
)
from converters.tokenizer import write_tokenizer_files
from fedpt.errors import ModelFileError
from fedpt.files import folder_written_aside
from fedpt.gguf_file import GgufFile, TensorInfo, read_gguf

_EMBEDDING: Final = "model.embed_tokens.weight"
_HEAD: Final = "lm_head.weight"
_ROPE_FACTORS: Final = "rope_freqs.weight"
_DEFAULT_ROPE_BASE: Final = 10_000.0  # what llama.cpp takes where a file does not say


def load_causal_lm(path: Path, *, dtype: torch.dtype = torch.float32) -> LlamaForCausalLM:
    """Load a GGUF model for training or evaluation, in `eval` mode.

    Args:
        path: A GGUF file of a supported family, in any quantisation.
        dtype: What the weights are kept in; llama.cpp computes in about float32.

    Returns:
        A `LlamaForCausalLM`. Its head is the embedding itself where the file has no `output`.

    Raises:
        ModelFileError: The file is missing, damaged, or of a kind that is not supported.
    """
    file = read_gguf(path)
    architecture = architecture_of(file)
    config = _config(file, architecture)
    with torch.device("meta"):  # no memory yet, and no time spent on random weights
        model = LlamaForCausalLM(config)
    try:
        model.load_state_dict(_state(file, architecture, dtype), assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ModelFileError(f"{path} does not fit its own header: {reason}") from error
    model.tie_weights()
    model.model.rotary_emb = LlamaRotaryEmbedding(config)  # its buffers are in no file
    return model.eval()


def write_transformers_folder(model: LlamaForCausalLM, gguf: Path, folder: Path) -> None:
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


def _config(file: GgufFile, architecture: Architecture) -> LlamaConfig:
    """The hyperparameters, in transformers' words."""
    key, metadata = architecture.key, file.metadata
    scaling = metadata.get(key("rope.scaling.type"), "none")
    if _ROPE_FACTORS in file.tensors or scaling != "none":
        raise ModelFileError(f"{file.path}: scaled rotary embeddings are not supported yet")
    if "token_embd.weight" not in file.tensors:
        raise ModelFileError(f"{file.path} has no token_embd.weight")
    numbers = {
        theirs: file.number(key(ours))
        for ours, theirs in architecture.numbers.items()
        if key(ours) in metadata
    }
    fractions = {
        theirs: _fraction(file, key(ours)) for ours, theirs in architecture.fractions.items()
    }
    base = metadata.get(key("rope.freq_base"), _DEFAULT_ROPE_BASE)
    head_size = metadata.get(key("attention.key_length"), metadata.get(key("rope.dimension_count")))
    try:
        return LlamaConfig(
            **numbers,
            **fractions,
            **_special_ids(metadata),
            head_dim=head_size,
            vocab_size=file.tensors["token_embd.weight"].shape[0],
            rope_parameters={"rope_type": "default", "rope_theta": base},
            tie_word_embeddings="output.weight" not in file.tensors,
            attention_bias="blk.0.attn_q.bias" in file.tensors,
            mlp_bias="blk.0.ffn_up.bias" in file.tensors,
        )
    except (StrictDataclassError, ValueError, ArithmeticError) as error:
        reason = " ".join(str(error).split())
        raise ModelFileError(f"{file.path}: its hyperparameters make no model: {reason}") from error


def _fraction(file: GgufFile, key: str) -> float:
    value = file.metadata.get(key)
    if not isinstance(value, float):
        raise ModelFileError(f"{file.path}: {key} is {value!r}, a number was expected")
    return value


def _special_ids(metadata: Mapping[str, Any]) -> dict[str, int | None]:
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _state(
    file: GgufFile, architecture: Architecture, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Every tensor that the file has, by its name in transformers."""
    names = gguf_names(architecture, layer_count(file))
    modules = {name: module for module, name in names.items()}
    state: dict[str, torch.Tensor] = {}
    for tensor in file.tensors.values():
        name, _, part = tensor.name.rpartition(".")
        if name not in modules:
            raise ModelFileError(f"{file.path}: tensor {tensor.name!r} is not known here")
        values = _dequantised(file.path, tensor)
        heads = rotary_heads(architecture, file.metadata, modules[name])
        if heads is not None:
            values = from_rotary_order(values, heads)
        state[f"{modules[name]}.{part}"] = torch.from_numpy(values).to(dtype)
    return {_HEAD: state[_EMBEDDING]} | state  # a tied head is in no file


def _dequantised(path: Path, tensor: TensorInfo) -> npt.NDArray[np.float32]:
    """A tensor's values as new float32 numbers."""
    kind = GGMLQuantizationType(tensor.ggml_type)
    try:
        data = np.fromfile(path, np.uint8, tensor.size_bytes, offset=tensor.offset)
        rows = data.reshape(quant_shape_to_byte_shape(tensor.shape, kind))
        values: npt.NDArray[np.float32] = dequantize(rows, kind)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror}") from error
    except NotImplementedError as error:
        raise ModelFileError(f"{path}: {kind.name} cannot be dequantised here") from error
    return values.reshape(tensor.shape)

"""An adapter's GGUF on a torch model: the inverse of `converters.adapter_to_gguf`."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quant_shape_to_byte_shape

from converters.gguf_to_torch import load_causal_lm
from converters.lora_in_torch import put_on
from converters.tensor_names import (
    architecture_of,
    from_rotary_order,
    gguf_names,
    layer_count,
    rotary_heads,
)
from fedpt.adapters import TENSOR_PREFIX, Adapter, AdapterManifest, AdapterTensors
from fedpt.gguf_file import GgufFile, TensorInfo, read_gguf, weights_sha256
from fedpt.proxy_tuning import Logits

_FACTORS: Final = {"lora_a": "lora_A", "lora_b": "lora_B"}


def load_tuned(small: Path, adapter: Path) -> Any:  # Any: peft has no types
    """The small model, dequantised to float32, with the adapter beside its weights."""
    return put_on(load_causal_lm(small), read_adapter(adapter, read_gguf(small))).eval()


def read_adapter(path: Path, base: GgufFile) -> Adapter:
    """The adapter as PEFT has it."""
    file, architecture = read_gguf(path), architecture_of(base)
    modules = {name: module for module, name in gguf_names(architecture, layer_count(base)).items()}
    tensors: AdapterTensors = {}
    for tensor in file.tensors.values():
        name, _, factor = tensor.name.rpartition(".weight.")
        values, module = _values(path, tensor), modules[name]
        heads = rotary_heads(architecture, base.metadata, module)
        if factor == "lora_b" and heads is not None:
            values = from_rotary_order(values, heads)
        tensors[f"{TENSOR_PREFIX}{module}.{_FACTORS[factor]}.weight"] = values
    rank = min(next(iter(tensors.values())).shape)
    alpha = file.metadata["adapter.lora.alpha"]
    kinds = sorted({name.split(".")[-3] for name in tensors})
    manifest = AdapterManifest(
        base_weights=weights_sha256(base),
        rank=rank,
        alpha=float(str(alpha)),
        target_modules=tuple(kinds),
    )
    return Adapter(manifest, tensors)


def _values(path: Path, tensor: TensorInfo) -> Logits:
    kind = GGMLQuantizationType(tensor.ggml_type)
    raw = np.fromfile(path, np.uint8, tensor.size_bytes, offset=tensor.offset)
    values = dequantize(raw.reshape(quant_shape_to_byte_shape(tensor.shape, kind)), kind)
    return np.asarray(values, np.float32).reshape(tensor.shape)

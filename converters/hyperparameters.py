"""A model's configuration between `config.json` and GGUF's metadata, by the family's table.

What llama.cpp would compute otherwise is refused here, rather than written and wrong.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from converters.architectures.table import Architecture
from converters.config_values import count, head_size, number
from converters.rotary_settings import Factors, rope_parameters, rotary_metadata
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue

_SLIDING: Final = "sliding_attention"
_FULL: Final = "full_attention"
_WINDOW_KEY: Final = "attention.sliding_window"
_PATTERN_KEY: Final = "attention.sliding_window_pattern"


def config_to_metadata(
    config: Mapping[str, Any], architecture: Architecture, *, row_count: int
) -> dict[str, GgufValue]:  # Any: config.json is free-form, here and below
    """The hyperparameters of a `config.json` under GGUF's keys.

    Args:
        config: The content of `config.json`.
        architecture: Its family.
        row_count: Rows of the embedding matrix, which may be more than there are tokens.

    Raises:
        ModelFileError: One is missing, or llama.cpp does not compute what it asks for.
    """
    _require_computed(config, architecture)
    key, size = architecture.key, head_size(config, architecture)
    metadata: dict[str, GgufValue] = {
        key(name): count(config, architecture, name) for name in architecture.numbers
    }
    for name, config_key in architecture.fractions.items():
        metadata[key(name)] = float(number(config, architecture, config_key))
    metadata[key("attention.key_length")] = size
    metadata[key("attention.value_length")] = size
    metadata[key("vocab_size")] = row_count
    metadata |= rotary_metadata(config, architecture)
    return metadata | _window_metadata(config, architecture)


def metadata_to_config(
    file: GgufFile, architecture: Architecture, factors: Mapping[str, Factors]
) -> dict[str, Any]:
    """The hyperparameters of a GGUF file as a `config.json`.

    Args:
        file: The file.
        architecture: Its family.
        factors: See `converters.rotary_settings.rope_parameters`.

    Raises:
        ModelFileError: One is missing or makes no sense.
    """
    key, metadata = architecture.key, file.metadata
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelFileError(f"{file.path} has no token_embd.weight")
    config: dict[str, Any] = {
        "architectures": [architecture.transformers_name],
        "model_type": architecture.model_type,
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **{name: values[0] for name, values in architecture.only.items()},
        **_bias_switches(file, architecture),
        **_special_ids(metadata),
    }
    for name, config_key in architecture.numbers.items():
        if key(name) in metadata or config_key not in architecture.multiples:
            config[config_key] = file.number(key(name))
    for name, config_key in architecture.fractions.items():
        config[config_key] = _shortest(file, key(name))
    size = metadata.get(key("attention.key_length"), metadata.get(key("rope.dimension_count")))
    if architecture.own_head_size and size is not None:
        config["head_dim"] = size
    if architecture.score_scale:
        config[architecture.score_scale] = size
    try:
        rope = rope_parameters(metadata, architecture, factors)
    except (ModelFileError, KeyError) as error:
        raise ModelFileError(f"{file.path}: {error}") from error
    if rope is not None:
        config["rope_parameters"] = rope
    return config | _window_config(file, architecture, config)


def _require_computed(config: Mapping[str, Any], architecture: Architecture) -> None:
    for key, values in architecture.only.items():
        if config.get(key, values[0]) not in values:
            raise ModelFileError(
                f"config.json: {key} {config[key]!r} is not supported: llama.cpp computes"
                f" {architecture.gguf_name} with {values[0]!r}"
            )
    key = architecture.score_scale
    if key and number(config, architecture, key) != head_size(config, architecture):
        raise ModelFileError(
            f"config.json: {key} is {config.get(key)!r}; llama.cpp takes the size of a head,"
            f" {head_size(config, architecture)}"
        )


def _window_metadata(config: Mapping[str, Any], architecture: Architecture) -> dict[str, GgufValue]:
    """Which layers see a window only; see `converters.architectures.table.Window`."""
    window, key = architecture.window, architecture.key
    if window is None or (window.switch and not config.get(window.switch)):
        return {}
    size = config.get("sliding_window", window.default)
    if size is None and window.kind == "layers" and any(_sliding_layers(config, architecture)):
        raise ModelFileError("config.json: sliding_window is null, but some layers slide")
    if size is None:
        return {}
    if window.kind == "limit":
        context = count(config, architecture, "context_length")
        return {key("context_length"): min(context, int(size))}
    sliding = _sliding_layers(config, architecture)
    return {key(_WINDOW_KEY): int(size), key(_PATTERN_KEY): list(sliding)}


def _sliding_layers(config: Mapping[str, Any], architecture: Architecture) -> list[bool]:
    layers = count(config, architecture, "block_count")
    kinds = config.get("layer_types")
    if kinds is not None:
        if len(kinds) != layers or not set(kinds) <= {_SLIDING, _FULL}:
            raise ModelFileError(f"config.json: layer_types {kinds!r} are not known here")
        return [kind == _SLIDING for kind in kinds]
    period = architecture.window.period if architecture.window else 1
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or period
    return [bool((layer + 1) % period) for layer in range(layers)]


def _window_config(
    file: GgufFile, architecture: Architecture, config: Mapping[str, Any]
) -> dict[str, Any]:
    """The inverse of `_window_metadata`."""
    window, metadata = architecture.window, file.metadata
    if window is None:
        return {}
    if window.kind == "limit":
        return {"sliding_window": None} | ({window.switch: False} if window.switch else {})
    layers = int(config[architecture.numbers["block_count"]])
    size = metadata.get(architecture.key(_WINDOW_KEY))
    if not size:
        return {"layer_types": [_FULL] * layers}
    pattern = metadata.get(architecture.key(_PATTERN_KEY), window.period)
    if isinstance(pattern, list):
        kinds = [_SLIDING if slides else _FULL for slides in pattern]
    else:
        period = int(str(pattern))
        kinds = [_SLIDING if (layer + 1) % period else _FULL for layer in range(layers)]
    return {"sliding_window": size, "layer_types": kinds}


def _bias_switches(file: GgufFile, architecture: Architecture) -> dict[str, bool]:
    """Which switches must be on for the biases that the file has."""
    return {
        part.bias: f"blk.0.{part.name}.bias" in file.tensors
        for part in architecture.layer_parts.values()
        if part.bias not in ("", "always")
    }


def _special_ids(metadata: Mapping[str, GgufValue]) -> dict[str, Any]:
    return {
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _shortest(file: GgufFile, key: str) -> float:
    """A float32 by its shortest digits: 1e-05, where its exact value is 9.99999974737875e-06."""
    value = file.metadata.get(key)
    if not isinstance(value, float):
        raise ModelFileError(f"{file.path}: {key} is {value!r}, a number was expected")
    return float(str(np.float32(value)))

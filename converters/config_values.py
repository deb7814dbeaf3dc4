"""Reading numbers out of a `config.json`, with what transformers takes where it does not say."""

from collections.abc import Mapping
from typing import Any

from converters.architectures.table import Architecture
from fedpt.errors import ModelFileError


def number(config: Mapping[str, Any], architecture: Architecture, key: str) -> float:
    """A number that the configuration states, or that follows for this family.

    Raises:
        ModelFileError: It is missing or something else.
    """
    value = config.get(key)
    if value is None:
        value = architecture.defaults.get(key)
    if value is None and key in architecture.multiples:
        other, factor = architecture.multiples[key]
        return number(config, architecture, other) * factor
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelFileError(f"config.json: {key} is {value!r}, a number was expected")
    return value


def count(config: Mapping[str, Any], architecture: Architecture, name: str) -> int:
    """A whole number above zero by its key in GGUF, such as `block_count`.

    Raises:
        ModelFileError: It is missing or something else.
    """
    key = architecture.numbers[name]
    value = number(config, architecture, key)
    if value != int(value) or value < 1:
        raise ModelFileError(f"config.json: {key} is {value!r}, a count was expected")
    return int(value)


def is_tied(config: Mapping[str, Any], architecture: Architecture) -> bool:
    """Whether the head is the embedding."""
    return bool(config.get("tie_word_embeddings", architecture.defaults["tie_word_embeddings"]))


def head_size(config: Mapping[str, Any], architecture: Architecture) -> int:
    """Values of one attention head.

    Raises:
        ModelFileError: It is none that llama.cpp computes for this family.
    """
    heads = count(config, architecture, "attention.head_count")
    hidden = count(config, architecture, "embedding_length")
    stated = config.get("head_dim") or architecture.defaults.get("head_dim")
    if stated is None:
        return hidden // heads
    size = int(number({"head_dim": stated}, architecture, "head_dim"))
    if not architecture.own_head_size and size * heads != hidden:
        raise ModelFileError(
            f"config.json: head_dim {size} is not hidden size {hidden} by {heads} heads, which"
            f" llama.cpp takes for granted in {architecture.gguf_name}"
        )
    return size

"""The list of all families. Adding one is adding its table here, and a test."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from converters.architectures.gemma3 import GEMMA3
from converters.architectures.gpt2 import GPT2
from converters.architectures.llama import LLAMA, MISTRAL
from converters.architectures.phi3 import PHI3
from converters.architectures.qwen2 import QWEN2
from converters.architectures.qwen3 import QWEN3
from converters.architectures.table import Architecture
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile

_TABLES: Final = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA3, PHI3, GPT2)

ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType(
    {table.gguf_name: table for table in reversed(_TABLES)}
)
"""Every family by its name in GGUF; of two that share it, the first is read back."""


def architecture_of(file: GgufFile) -> Architecture:
    """The family of a GGUF file.

    Raises:
        ModelFileError: It is none of those we know.
    """
    if file.architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{file.path} is of the architecture {file.architecture or 'unknown'!r};"
            f" supported: {', '.join(sorted(ARCHITECTURES))}"
        )
    return ARCHITECTURES[file.architecture]


def architecture_named(transformers_name: str) -> Architecture:
    """The family that transformers calls so.

    Raises:
        ModelFileError: It is none of those we know.
    """
    for architecture in _TABLES:
        if architecture.transformers_name == transformers_name:
            return architecture
    supported = ", ".join(known.transformers_name for known in _TABLES)
    raise ModelFileError(
        f"the architecture {transformers_name!r} is not supported; supported: {supported}"
    )


def architecture_in(config: Mapping[str, Any]) -> Architecture:  # Any: config.json is free-form
    """The family that a `config.json` is of.

    Raises:
        ModelFileError: It is none of those we know, or not stated.
    """
    names = config.get("architectures")
    return architecture_named(str(names[0]) if isinstance(names, list) and names else "none stated")

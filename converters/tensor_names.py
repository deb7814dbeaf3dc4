"""What a model family's parts are called in transformers and in GGUF, as tables.

A family is one `Architecture`: adding one is adding a table. Pure: no files, no torch. Tensors are
read in `converters.checkpoint` and written in `converters.gguf_output`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Architecture:
    """One family of models, by both names of everything in it."""

    gguf_name: str
    """`general.architecture`, and the prefix of its hyperparameters."""
    transformers_name: str
    """As in `architectures` of `config.json`."""
    model_modules: Mapping[str, str]
    """Modules outside the layers: path in transformers to name in GGUF."""
    layer_modules: Mapping[str, str]
    """Modules of one layer, without the layer's prefix."""
    linear_modules: frozenset[str]
    """Those modules of a layer that are linear layers: what an adapter may change."""
    rotary_modules: Mapping[str, str]
    """Modules whose rows GGUF stores in rotary order, with the number that counts their heads."""
    numbers: Mapping[str, str]
    """Whole-number hyperparameters: key in GGUF to key in `config.json`."""
    fractions: Mapping[str, str]
    """The same for those that are not whole."""

    def key(self, name: str) -> str:
        """A hyperparameter's whole key in GGUF."""
        return f"{self.gguf_name}.{name}"


_LLAMA: Final = Architecture(
    gguf_name="llama",
    transformers_name="LlamaForCausalLM",
    model_modules={
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
    },
    layer_modules={
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    },
    linear_modules=frozenset(
        {
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
        }
    ),
    rotary_modules={
        "self_attn.q_proj": "attention.head_count",
        "self_attn.k_proj": "attention.head_count_kv",
    },
    numbers={
        "block_count": "num_hidden_layers",
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
    },
    fractions={"attention.layer_norm_rms_epsilon": "rms_norm_eps"},
)  # fmt: skip

ARCHITECTURES: Final[Mapping[str, Architecture]] = MappingProxyType({"llama": _LLAMA})
"""Every supported family by its name in GGUF. SmolLM2 and Llama are of the family `llama`."""


def architecture_of(file: GgufFile) -> Architecture:
    """The family of a GGUF file.

    Raises:
        ModelFileError: It is none of those we know.
    """
    if file.architecture not in ARCHITECTURES:
        raise ModelFileError(
            f"{file.path} is of the architecture {file.architecture or 'unknown'!r};"
            f" supported: {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[file.architecture]


def architecture_named(transformers_name: str) -> Architecture:
    """The family that transformers calls so.

    Raises:
        ModelFileError: It is none of those we know.
    """
    for architecture in ARCHITECTURES.values():
        if architecture.transformers_name == transformers_name:
            return architecture
    supported = ", ".join(known.transformers_name for known in ARCHITECTURES.values())
    raise ModelFileError(
        f"the architecture {transformers_name!r} is not supported; supported: {supported}"
    )


def layer_count(file: GgufFile) -> int:
    """How many layers a GGUF file's model has.

    Raises:
        ModelFileError: The file does not say, says more than it can hold, or is of no known family.
    """
    count = file.number(architecture_of(file).key("block_count"))
    if not 0 < count <= len(file.tensors):
        raise ModelFileError(f"{file.path}: {count} layers in {len(file.tensors)} tensors")
    return count


def gguf_names(architecture: Architecture, layers: int) -> dict[str, str]:
    """Every module of a model: `model.layers.0.self_attn.q_proj` to `blk.0.attn_q`."""
    names = dict(architecture.model_modules)
    for layer in range(layers):
        for module, name in architecture.layer_modules.items():
            names[f"model.layers.{layer}.{module}"] = f"blk.{layer}.{name}"
    return names


def linear_shapes(file: GgufFile) -> dict[str, tuple[int, int]]:
    """The linear layers of a GGUF file's model, from its header: module path to `(out, in)`.

    Raises:
        ModelFileError: The family is unknown, or a layer is missing or no matrix.
    """
    architecture = architecture_of(file)
    names = gguf_names(architecture, layer_count(file))
    shapes: dict[str, tuple[int, int]] = {}
    for module, name in names.items():
        if _within_layer(module) not in architecture.linear_modules:
            continue
        tensor = file.tensors.get(f"{name}.weight")
        match tensor.shape if tensor else ():
            case (rows, columns):
                shapes[module] = (rows, columns)
            case shape:
                raise ModelFileError(f"{file.path}: {name}.weight is {shape}, not a matrix")
    return shapes


def rotary_heads(
    architecture: Architecture, metadata: Mapping[str, GgufValue], module: str
) -> int | None:
    """How many heads' rows a module stores in rotary order; None if it stores them as they are.

    Raises:
        ModelFileError: The metadata does not count the heads.
    """
    count_name = architecture.rotary_modules.get(_within_layer(module))
    if count_name is None:
        return None
    # without grouped queries the second count may be left out
    counts = [metadata.get(architecture.key(name)) for name in (count_name, "attention.head_count")]
    heads = next((count for count in counts if count is not None), None)
    if not isinstance(heads, int) or heads < 1:
        raise ModelFileError(f"{architecture.key(count_name)} is {heads!r}, a count was expected")
    return heads


def to_rotary_order(rows: npt.NDArray[Scalar], heads: int) -> npt.NDArray[Scalar]:
    """Reorder a projection's output rows from transformers' order to GGUF's.

    Rotary embedding turns pairs of values. transformers pairs row `i` of a head with row
    `i + size / 2`, llama.cpp rows `2i` and `2i + 1` (section 3.4 of
    https://arxiv.org/abs/2104.09864).

    Args:
        rows: A weight `(heads * size, in)`, a bias `(heads * size,)` or a LoRA B
            `(heads * size, r)`.
        heads: Number of heads in it.

    Raises:
        ModelFileError: The rows are no whole number of pairs per head.
    """
    _require_pairs(rows.shape, heads)
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)


def from_rotary_order(rows: npt.NDArray[Scalar], heads: int) -> npt.NDArray[Scalar]:
    """The inverse of `to_rotary_order`.

    Raises:
        ModelFileError: As there.
    """
    _require_pairs(rows.shape, heads)
    pairs = rows.reshape(heads, rows.shape[0] // heads // 2, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _require_pairs(shape: tuple[int, ...], heads: int) -> None:
    if not shape or shape[0] % (2 * heads):
        raise ModelFileError(f"a projection of shape {shape} does not fit {heads} rotary heads")


def _within_layer(module: str) -> str:
    """`model.layers.0.self_attn.q_proj` -> `self_attn.q_proj`; empty outside the layers."""
    prefix, _, rest = module.partition("model.layers.")
    return "" if prefix or not rest else rest.partition(".")[2]

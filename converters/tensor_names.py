"""What a model's parts are called in transformers and in GGUF, and which shapes they have.

Reads the tables in `converters.architectures`. Pure: no files, no torch. What happens to the values
is `converters.tensor_changes`.
"""

from collections.abc import Mapping

from converters.architectures.known import (
    ARCHITECTURES,
    architecture_in,
    architecture_named,
    architecture_of,
)
from converters.architectures.table import HEAD, Architecture, Part
from converters.tensor_changes import from_rotary_order, to_rotary_order
from fedpt.errors import ModelFileError
from fedpt.gguf_file import GgufFile, GgufValue

__all__ = [
    "ARCHITECTURES",
    "adaptable_shapes",
    "architecture_in",
    "architecture_named",
    "architecture_of",
    "from_rotary_order",
    "gguf_names",
    "heads_of",
    "layer_count",
    "linear_shapes",
    "matrix_shape",
    "parts_of",
    "require_shape",
    "rotary_heads",
    "sizes_of",
    "to_rotary_order",
]

_MATRIX = 2


def layer_count(file: GgufFile) -> int:
    """How many layers a GGUF file's model has.

    Raises:
        ModelFileError: The file does not say, says more than it can hold, or is of no known family.
    """
    count = file.number(architecture_of(file).key("block_count"))
    if not 0 < count <= len(file.tensors):
        raise ModelFileError(f"{file.path}: {count} layers in {len(file.tensors)} tensors")
    return count


def parts_of(architecture: Architecture, layers: int) -> dict[str, tuple[str, Part]]:
    """Every module of a model: path in transformers to its whole name in GGUF and its table row."""
    parts = {module: (part.name, part) for module, part in architecture.model_parts.items()}
    for layer in range(layers):
        for module, part in architecture.layer_parts.items():
            parts[f"{architecture.layers}.{layer}.{module}"] = (f"blk.{layer}.{part.name}", part)
    return parts


def gguf_names(architecture: Architecture, layers: int) -> dict[str, str]:
    """Every module of a model: `model.layers.0.self_attn.q_proj` to `blk.0.attn_q`."""
    return {module: name for module, (name, _) in parts_of(architecture, layers).items()}


def linear_shapes(file: GgufFile) -> dict[str, tuple[int, int]]:
    """The linear layers of a GGUF file's model, from its header: module path to `(out, in)`.

    Raises:
        ModelFileError: The family is unknown, or a layer is missing or no matrix.
    """
    parts = parts_of(architecture_of(file), layer_count(file))
    return {module: matrix_shape(file, name) for module, (name, p) in parts.items() if p.linear}


def adaptable_shapes(file: GgufFile) -> dict[str, tuple[int, int]]:
    """Whatever an adapter may change: the linear layers, and embedding and head.

    llama.cpp looks an adapter's factors up by the tensor's name. A tied head has the embedding's,
    so neither can be changed alone, and both are left out.

    Raises:
        ModelFileError: See `linear_shapes`.
    """
    architecture, shapes = architecture_of(file), linear_shapes(file)
    if "output.weight" in file.tensors:
        shapes[architecture.embedding] = matrix_shape(file, "token_embd")
        shapes[HEAD] = matrix_shape(file, "output")
    return shapes


def matrix_shape(file: GgufFile, name: str) -> tuple[int, int]:
    """The shape of the tensor `name.weight`, rows first.

    Raises:
        ModelFileError: It is missing or no matrix.
    """
    tensor = file.tensors.get(f"{name}.weight")
    match tensor.shape if tensor else ():
        case (rows, columns):
            return rows, columns
        case shape:
            raise ModelFileError(f"{file.path}: {name}.weight is {shape}, not a matrix")


def rotary_heads(
    architecture: Architecture, metadata: Mapping[str, GgufValue], module: str
) -> int | None:
    """How many heads' rows a module stores in rotary order; None if it stores them as they are.

    Raises:
        ModelFileError: The metadata does not count the heads.
    """
    part = architecture.layer_parts.get(_within_layer(architecture, module))
    return None if part is None else heads_of(architecture, metadata, part)


def heads_of(
    architecture: Architecture, metadata: Mapping[str, GgufValue], part: Part
) -> int | None:
    """The same for a row of the table.

    Raises:
        ModelFileError: The metadata does not count the heads.
    """
    if not part.heads:
        return None
    # without grouped queries the second count may be left out
    counts = [metadata.get(architecture.key(name)) for name in (part.heads, "attention.head_count")]
    heads = next((count for count in counts if count is not None), None)
    if not isinstance(heads, int) or heads < 1:
        raise ModelFileError(f"{architecture.key(part.heads)} is {heads!r}, a count was expected")
    return heads


def sizes_of(
    architecture: Architecture, metadata: Mapping[str, GgufValue], vocabulary: int
) -> dict[str, int]:
    """The sizes that shapes in the tables are made of.

    Raises:
        ModelFileError: The metadata lacks one.
    """

    def number(name: str) -> int:
        value = metadata.get(architecture.key(name))
        if not isinstance(value, int) or value < 1:
            raise ModelFileError(f"{architecture.key(name)} is {value!r}, a count was expected")
        return value

    hidden, heads = number("embedding_length"), number("attention.head_count")
    key_heads = architecture.key("attention.head_count_kv")
    groups = number("attention.head_count_kv") if key_heads in metadata else heads
    stated = architecture.key("attention.key_length") in metadata
    head = number("attention.key_length") if stated else hidden // heads
    return {
        "vocabulary": vocabulary,
        "hidden": hidden,
        "inner": number("feed_forward_length"),
        "positions": number("context_length"),
        "head": head,
        "queries": heads * head,
        "keys": groups * head,
    }


def require_shape(
    what: str, shape: tuple[int, ...], part: Part, *, kind: str, sizes: Mapping[str, int]
) -> None:
    """Refuse a tensor of another shape than the hyperparameters say.

    Args:
        what: The tensor, as the error names it.
        shape: Rows first, as GGUF has it.
        part: Its row in the table.
        kind: `weight` or `bias`; a bias has as many values as the weight has rows.
        sizes: See `sizes_of`.

    Raises:
        ModelFileError: States both shapes.
    """
    axes = part.shape.split()[: 1 if kind == "bias" else _MATRIX]
    expected = tuple(sum(sizes[size] for size in axis.split("+")) for axis in axes)
    if shape != expected:
        raise ModelFileError(
            f"{what} is {shape}, the model's configuration makes it {expected} ({' x '.join(axes)})"
        )


def _within_layer(architecture: Architecture, module: str) -> str:
    """`model.layers.0.self_attn.q_proj` -> `self_attn.q_proj`; empty outside the layers."""
    prefix, _, rest = module.partition(f"{architecture.layers}.")
    return "" if prefix or not rest else rest.partition(".")[2]

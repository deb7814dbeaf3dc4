"""An adapter's factors between PEFT's names and order and GGUF's, both ways.

``P (W + B A) = P W + (P B) A``: where GGUF reorders a projection's rows, B's are reordered likewise
and A is left as it is. An embedding's A is transposed, for llama.cpp looks tokens up in its rows.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from converters.architectures.known import architecture_of
from converters.architectures.table import HEAD
from converters.tensor_changes import from_rotary_order, to_rotary_order
from converters.tensor_names import adaptable_shapes, heads_of, layer_count, parts_of
from fedpt.adapters import FACTOR_PAIRS, TENSOR_PREFIX
from fedpt.errors import AdapterError
from fedpt.gguf_file import GgufFile

Factor = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Target:
    """One module that an adapter may change."""

    module: str
    """Its path in transformers."""
    tensor: str
    """What GGUF calls its weight."""
    shape: tuple[int, int]
    """`(out, in)`; of an embedding `(tokens, hidden)`."""
    heads: int | None
    """How many heads' rows GGUF reorders; None: none."""
    is_embedding: bool

    @property
    def names(self) -> tuple[str, str]:
        """What PEFT calls A and B."""
        endings = FACTOR_PAIRS[1 if self.is_embedding else 0]
        first, second = (f"{TENSOR_PREFIX}{self.module}{ending}" for ending in endings)
        return first, second

    def fits(self, first: Factor, second: Factor) -> bool:
        """Whether the product of A and B, as PEFT has them, has the module's shape."""
        shape = second.shape[0], first.shape[1]
        return self.shape == (shape[::-1] if self.is_embedding else shape)

    def to_gguf(self, first: Factor, second: Factor) -> tuple[Factor, Factor]:
        """A and B as GGUF stores them."""
        if self.is_embedding:
            return first.T, second
        return first, second if self.heads is None else to_rotary_order(second, self.heads)

    def from_gguf(self, first: Factor, second: Factor) -> tuple[Factor, Factor]:
        """The inverse of `to_gguf`."""
        if self.is_embedding:
            return np.ascontiguousarray(first.T), second
        return first, second if self.heads is None else from_rotary_order(second, self.heads)


def targets_of(base: GgufFile) -> dict[str, Target]:
    """Every module of a model that an adapter may change, in the order of the model.

    Raises:
        ModelFileError: The model is of an unsupported family or damaged.
    """
    architecture, shapes = architecture_of(base), adaptable_shapes(base)
    return {
        module: Target(
            module=module,
            tensor=f"{name}.weight",
            shape=shapes[module],
            heads=heads_of(architecture, base.metadata, part),
            is_embedding=module == architecture.embedding,
        )
        for module, (name, part) in parts_of(architecture, layer_count(base)).items()
        if module in shapes
    }


def require_targets(base: GgufFile, modules: set[str], targets: dict[str, Target]) -> None:
    """Refuse an adapter of modules that llama.cpp cannot change, with the reason.

    Raises:
        AdapterError: Names the first.
    """
    unknown = sorted(modules - targets.keys())
    if not unknown:
        return
    if unknown[0] in (HEAD, architecture_of(base).embedding):
        raise AdapterError(
            f"{unknown[0]!r} cannot have an adapter: embedding and head of this model are one"
            " tensor, which llama.cpp would change in both places"
        )
    raise AdapterError(f"the base model has no linear layer {unknown[0]!r}")


def module_of(tensor_name: str) -> str:
    """`base_model.model.lm_head.lora_A.weight` -> `lm_head`."""
    name = tensor_name.removeprefix(TENSOR_PREFIX)
    for ending in (ending for pair in FACTOR_PAIRS for ending in pair):
        name = name.removesuffix(ending)
    return name

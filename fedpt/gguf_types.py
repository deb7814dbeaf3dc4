"""ggml's tensor types: how many values a block holds, and how many bytes it takes. Data only.

From the format's own table: https://github.com/ggml-org/ggml/blob/master/include/ggml.h. Which of
them a file is best stored in is `converters.quantisation_facts`.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class GgmlType:
    """How one type stores values."""

    name: str
    block: int
    """Values in a block: a row must be a whole number of them."""
    block_bytes: int

    def size_bytes(self, values: int) -> int:
        """What so many values take; they must be whole blocks."""
        return values // self.block * self.block_bytes


GGML_TYPES: Final = {
    0: GgmlType("F32", 1, 4), 1: GgmlType("F16", 1, 2), 2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20), 6: GgmlType("Q5_0", 32, 22), 7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34), 9: GgmlType("Q8_1", 32, 36), 10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110), 12: GgmlType("Q4_K", 256, 144), 13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210), 15: GgmlType("Q8_K", 256, 292),
    16: GgmlType("IQ2_XXS", 256, 66), 17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98), 19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18), 21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82), 23: GgmlType("IQ4_XS", 256, 136), 24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2), 26: GgmlType("I32", 1, 4), 27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8), 29: GgmlType("IQ1_M", 256, 56), 30: GgmlType("BF16", 1, 2),
    34: GgmlType("TQ1_0", 256, 54), 35: GgmlType("TQ2_0", 256, 66), 39: GgmlType("MXFP4", 32, 17),
    40: GgmlType("NVFP4", 64, 36), 41: GgmlType("Q1_0", 128, 18), 42: GgmlType("Q2_0", 64, 18),
}  # fmt: skip
"""By id. Missing ids are types that were taken out of the format again."""

GGML_TYPE_IDS: Final = {known.name: type_id for type_id, known in GGML_TYPES.items()}
"""Name to id."""

FLOAT32: Final = 0

UNCOMPUTABLE: Final = frozenset({9, 15, 24, 25, 26, 27, 28})
"""llama.cpp multiplies by no matrix of these: whole numbers, doubles, and two of its own
intermediates."""

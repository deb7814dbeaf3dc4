"""Measured facts that a choice of quantisation rests on, each with its source. Data only.

`converters.quantise_choice` reads them. Sizes are not here: libllama computes them for the model at
hand.
"""

from dataclasses import dataclass
from typing import Final

_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Loss:
    """Mean KL divergence from F16, nats a token, of a model stored mostly in one tensor type."""

    plain: float
    guided: float | None = None
    """With an importance matrix; None where nobody has measured it."""


LOSSES: Final = {
    "F32": Loss(0.0),
    "F16": Loss(0.0),
    "BF16": Loss(0.0),
    "Q8_0": Loss(0.001355),
    "Q6_K": Loss(0.005452),
    "Q5_K": Loss(0.016595),
    "Q5_1": Loss(0.018045),
    "Q5_0": Loss(0.022239),
    "Q4_K": Loss(0.043136, guided=0.031951),
    "IQ4_NL": Loss(0.0484, guided=0.035742),
    "IQ4_XS": Loss(0.0492, guided=0.036334),
    "Q4_1": Loss(0.071683),
    "Q4_0": Loss(0.071940),
    "IQ3_S": Loss(0.1506, guided=0.111278),
    "Q3_K": Loss(0.228217, guided=0.199821),
    "IQ3_XXS": Loss(0.2485, guided=0.183625),
    "Q2_K": Loss(0.445132, guided=0.332223),
    "IQ2_S": Loss(0.441, guided=0.325989),
    "IQ2_XS": Loss(0.739, guided=0.546290),
    "IQ2_XXS": Loss(1.099, guided=0.812022),
    "IQ1_M": Loss(1.885, guided=1.393084),
    "IQ1_S": Loss(3.05, guided=2.254554),
}
"""By tensor type. Llama 3 8B on Wikitext-2, CUDA: the scoreboard of
https://github.com/ggml-org/llama.cpp/blob/master/tools/perplexity/README.md, revision f364eb6f, the
rows of `_S` mixtures for K-quants, those with 10 million tokens for importance. IQ types without
one are in no table: their guided value times 1.353, the ratio of Q4_K's two. The order is what is
used of them, and small models lose more: docs/quantisation.md has SmolLM2-135M."""

NEEDS_IMPORTANCE: Final = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
"""Tensor types that libllama refuses to write without an importance matrix
(`tensor_requires_imatrix` in its llama-quant.cpp); Q2_K_S wants one too."""

FAST_ON_ARM: Final = frozenset({"F32", "F16", "Q4_0", "IQ4_NL", "Q4_K", "Q5_K", "Q6_K", "Q8_0"})
"""Quantised types whose rows llama.cpp rearranges on load for ARM's dot products, and plain floats
(`ggml_repack_get_optimal_repack_type` in ggml-cpu's repack.cpp, as in llama-cpp-python 0.3.36)."""


@dataclass(frozen=True, slots=True)
class Board:
    """What a board can do, as somebody has measured it."""

    name: str
    memory_bytes: int
    """Of the smallest version on which a small model is at home."""
    bytes_per_s: float
    """Weights read while decoding: published tokens/s times the file's size."""
    source: str


BOARDS: Final = {
    "rpi4": Board(
        "Raspberry Pi 4, 2 GB",
        2048 * _MIB,
        3.05 * 1.12e9,  # Qwen 1.5 1.8B Q4_0: 1.12 GB, 3.05 tokens/s
        "https://github.com/aidatatools/ollama-benchmark/pull/9",
    ),
    "rpi5": Board(
        "Raspberry Pi 5, 4 GB",
        4096 * _MIB,
        33.8 * 352e6,  # Qwen 2.5 0.5B Q4_0: 352 MB, 33.8 tokens/s with two threads
        "https://github.com/ggml-org/llama.cpp/discussions/30069",
    ),
    "rpi500": Board(
        "Raspberry Pi 500+, 16 GB",
        16384 * _MIB,
        5.55 * 2.02e9,  # Llama 3.2 3B Q4_K_M: 2.02 GB, 5.55 tokens/s
        "https://github.com/geerlingguy/ai-benchmarks/issues/24",
    ),
}
"""By the name that `--board` takes."""

LEAST_TOKENS_PER_S: Final = 20.0
"""What a board should reach with a small model: expert and antiexpert are read for each token, and
people read about ten tokens a second."""

MEMORY_SHARE: Final = 0.25
"""Of a board's memory, for the weights: llama.cpp keeps a rearranged copy beside the mapped file,
and caches, daemon and system want the rest."""

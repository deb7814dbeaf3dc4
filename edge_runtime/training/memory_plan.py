"""Which way to train fits into a budget, and is the fastest of those. Pure.

The estimates are sums of what is known to be kept, with factors measured by
`benchmarks/training_memory.py`; they lean to the safe side.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from typing import Final

from edge_runtime.training.how import How, Mode, Precision
from fedpt.errors import TrainingError

MEGABYTE: Final = 1_000_000

_LEAST_CONTEXT: Final = 64
_FLOAT: Final = 4
_OPTIMISER_FLOATS: Final = 4
"""Of each trained number: itself, its gradient, two moments."""
_SLACK: Final = 50 * MEGABYTE
"""Code that is loaded at the first step, buffers of the matrix library, two blocks of the head."""
_HALF_SLACK: Final = 80 * MEGABYTE
"""oneDNN, which multiplies bfloat16, keeps compiled kernels and buffers for every length."""
_HELD: Final = 45 * MEGABYTE
"""What the C library keeps of freed layers in float32, however short the pass, unless thrifty."""
_QUANTO_CODE: Final = 120 * MEGABYTE
"""What importing optimum.quanto takes, transformers and torch's compiler included."""
_SAFETY: Final = 1.05
_FRAGMENTS: Final = {"float32": 2.2, "bfloat16": 1.6}
"""What the C library and the matrix library hold when activations take 1, unless thrifty."""
_THRIFTY_SLOWDOWN: Final = 1.8
_MATMUL_FLOPS: Final = 150e9
_EXPANDED_PER_S: Final = 1e9
"""Numbers dequantised a second. Only the ratio of the two matters here."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of a model, an adapter and a data set."""

    layers: int
    hidden: int
    inner: int
    queries: int
    layer_numbers: int
    """In the linear layers of one layer."""
    trained_numbers: int
    longest: int
    """Tokens of the longest example."""
    batch_tokens: int
    """Tokens of a whole batch of such."""
    start_numbers: int = 0
    """Kept of where the training started, for a proximal term."""


def choose(
    sizes: Sizes,
    budget_bytes: int,
    there_bytes: int,
    *,
    precision: Precision = "float32",
    mode: Mode | None = None,
) -> How:
    """The fastest way that stays under the budget.

    Args:
        sizes: What is trained.
        budget_bytes: What the process may have resident, all in all.
        there_bytes: What it has already: code, tokenizer, data.
        precision: Of the computation.
        mode: Only ways of this mode; None: of those that need nothing else and round no more.

    Raises:
        TrainingError: None does; says the smallest budget that would.
    """
    room = budget_bytes - there_bytes
    fitting = [way for way in _ways(sizes, precision, mode) if estimate(sizes, way) <= room]
    if not fitting:
        least = smallest_budget(sizes, there_bytes, precision=precision, mode=mode)
        raise TrainingError(
            f"no way to train this model needs as little as {budget_bytes // MEGABYTE} MB; the"
            f" smallest memory budget that would do is {least // MEGABYTE} MB"
        )
    return min(fitting, key=lambda way: (-way.context_tokens, _seconds(sizes, way)))


def smallest_budget(
    sizes: Sizes,
    there_bytes: int,
    *,
    precision: Precision = "float32",
    mode: Mode | None = None,
) -> int:
    """The smallest budget for which there is a way, in bytes of whole megabytes."""
    least = min(estimate(sizes, way) for way in _ways(sizes, precision, mode))
    return -(-(there_bytes + least) // MEGABYTE) * MEGABYTE


def estimate(sizes: Sizes, how: How) -> int:
    """Bytes that a way to train needs besides what is there."""
    width = 2 if how.precision == "bfloat16" else _FLOAT
    tokens = min(how.pass_tokens, sizes.batch_tokens)
    tokens = max(tokens, min(sizes.longest, how.context_tokens))
    if how.mode == "plain":
        return int(_SAFETY * _plain(sizes, width, tokens))
    layer_activations = 4 * sizes.inner + 6 * sizes.hidden + 2 * sizes.queries
    kept = sizes.hidden * sizes.layers + layer_activations
    if not how.recompute:
        kept = layer_activations * sizes.layers
    in_flight = 3 * sizes.inner + 4 * sizes.hidden
    activations = tokens * (kept + in_flight) * width
    base = sizes.layer_numbers * width
    if how.mode == "expanded":
        base *= sizes.layers
    elif how.mode == "quanto":
        base += sizes.layer_numbers * sizes.layers + _QUANTO_CODE
    working = sizes.layer_numbers // 3 * (_FLOAT + 2)  # a matrix on its way out of the file
    slack = _SLACK + (_HALF_SLACK if how.precision == "bfloat16" else 0)
    passing = activations + working
    if not how.thrifty:
        slack += _HELD if how.precision == "float32" else 0
        passing = int(_FRAGMENTS[how.precision] * passing)
    return int(_SAFETY * (passing + base + _trained(sizes) + slack))


def _plain(sizes: Sizes, width: int, tokens: int) -> int:
    layer = 8 * sizes.inner + 16 * sizes.hidden + 4 * sizes.queries
    base = sizes.layer_numbers * sizes.layers * width
    return base + tokens * layer * sizes.layers * width + _trained(sizes) + 8 * _SLACK


def _trained(sizes: Sizes) -> int:
    return (sizes.trained_numbers * _OPTIMISER_FLOATS + sizes.start_numbers) * _FLOAT


def _ways(sizes: Sizes, precision: Precision, mode: Mode | None) -> Iterator[How]:
    modes: tuple[Mode, ...] = (mode,) if mode else ("expanded", "mapped")
    for context in _halvings(sizes.longest, _LEAST_CONTEXT):
        shorter = replace(
            sizes, longest=context, batch_tokens=sizes.batch_tokens * context // sizes.longest
        )
        for kind, recompute, thrifty, tokens in product(
            modes, (False, True), (False, True), _halvings(shorter.batch_tokens, context)
        ):
            yield How(
                mode=kind,
                precision=precision,
                recompute=recompute,
                thrifty=thrifty,
                pass_tokens=tokens,
                context_tokens=context,
            )


def _halvings(most: int, least: int) -> list[int]:
    """`most`, its half, and so on; last `least`, unless that is more."""
    values = []
    while most > least:
        values.append(most)
        most = -(-most // 2)
    return [*values, min(most, least) if values else most]


def _seconds(sizes: Sizes, how: How) -> float:
    """A token's, roughly: to compare ways with."""
    numbers = sizes.layer_numbers * sizes.layers
    computed = (4 if how.recompute else 3) * 2 * numbers / _MATMUL_FLOPS
    expanded = 0.0
    if how.mode == "mapped":
        expanded = 2 * numbers / _EXPANDED_PER_S / how.pass_tokens
    seconds = computed + expanded + 1e-6 / how.pass_tokens  # of equals the larger pass
    return seconds * (_THRIFTY_SLOWDOWN if how.thrifty else 1)

"""A verification as a table, as JSON, and as a picture of quality against size."""

from pathlib import Path
from typing import Any, Final

from converters.verify import Verification, Verified
from fedpt.errors import UsageError
from fedpt.files import written_aside

_MB: Final = 1e6
_LEAST_KL: Final = 1e-7  # what float32 sums leave of zero, so that a logarithm can show it
_COLUMNS: Final = ("file", "type", "MB", "perplexity", "mean KL", "same top token", "largest diff")


def as_table(result: Verification) -> str:
    """Lines for people, the files in the given order."""
    head = f"{result.source}: perplexity {result.source_perplexity:.4g} on {result.tokens} tokens"
    rows = [_COLUMNS, *(_cells(one) for one in result.files)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)  # noqa: PLR2004  # words
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([head, "", *lines])


def as_json(result: Verification) -> dict[str, Any]:  # Any: JSON
    """The same for programs: numbers in full, sizes in bytes, KL in nats a token."""
    return {
        "source": result.source,
        "tokens": result.tokens,
        "source_perplexity": result.source_perplexity,
        "files": [
            {
                "file": str(one.path),
                "type": one.kind,
                "size_bytes": one.size_bytes,
                "perplexity": one.fidelity.perplexity,
                "mean_kl": one.fidelity.mean_kl,
                "top1_agreement": one.fidelity.top1_agreement,
                "largest_logit_difference": one.fidelity.largest_difference,
            }
            for one in result.files
        ],
    }


def plot(result: Verification, path: Path) -> None:
    """Write a picture: each file's KL over its size.

    Raises:
        UsageError: matplotlib is not installed.
        StorageError: The picture cannot be written.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        raise UsageError("--plot needs matplotlib: pip install matplotlib") from None

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    sizes = [one.size_bytes / _MB for one in result.files]
    losses = [max(_LEAST_KL, one.fidelity.mean_kl) for one in result.files]
    axes.scatter(sizes, losses, s=18, color="#1f77b4")
    for one, size, loss in zip(result.files, sizes, losses, strict=True):
        axes.annotate(one.path.stem, (size, loss), (3, 3), textcoords="offset points", fontsize=7)
    axes.set(
        yscale="log", xlabel="MB", ylabel="mean KL from the source, nats a token",
        title=Path(result.source).name,
    )  # fmt: skip
    axes.grid(alpha=0.3, which="both")
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=100)
    plt.close(figure)


def _cells(one: Verified) -> tuple[str, ...]:
    fidelity = one.fidelity
    return (
        one.path.name,
        one.kind,
        f"{one.size_bytes / _MB:.1f}",
        f"{fidelity.perplexity:.4g}",
        f"{fidelity.mean_kl:.3g}" if fidelity.mean_kl > _LEAST_KL else "0",
        f"{fidelity.top1_agreement:.1%}",
        f"{fidelity.largest_difference:.3g}",
    )

"""Peak memory of conversions of a large sharded checkpoint, against four of its largest tensors.

`python -m benchmarks.conversion_memory`: random weights of 2 GB, and of half of that: what grows
with the model would show.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.measured_child import run_measured
from benchmarks.random_checkpoint import write_random_checkpoint
from benchmarks.report import Row, Target, tell_conversions

_ALLOWANCE_BYTES: Final = 400_000_000  # the interpreter, its libraries, the vocabulary
_TENSORS: Final = 4
_MB: Final = 1e6
_KINDS: Final = ("F16", "Q8_0", "Q4_0")


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the checkpoint")
    parser.add_argument("--kinds", nargs="+", default=_KINDS, help="types to convert to")
    parser.add_argument("--runs", type=int, default=3, help="how often; medians are shown")
    parser.add_argument("--folder", type=Path, help="for the checkpoint; unset: a temporary one")
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of a table")
    flags = parser.parse_args()
    results: list[tuple[Row, Target]] = []
    with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
        for share in (0.5, 1.0):
            size_bytes = int(flags.gigabytes * share * 1e9)
            results += _measure(Path(folder) / str(size_bytes), size_bytes, flags)
    rows, targets = [row for row, _ in results], [target for _, target in results]
    tell_conversions(rows, targets, runs=flags.runs, how="runs, medians", as_json=flags.json)


def _measure(
    folder: Path, size_bytes: int, flags: argparse.Namespace
) -> Iterator[tuple[Row, Target]]:
    largest = write_random_checkpoint(folder, size_bytes)
    limit = _TENSORS * largest + _ALLOWANCE_BYTES
    for kind in flags.kinds:
        peak = statistics.median(_peaks(folder, kind, flags.runs))
        row: Row = {
            "checkpoint, MB": round(size_bytes / _MB),
            "largest tensor, MB": round(largest / _MB),
            "type": kind,
            "peak, MB": round(peak / _MB),
            "limit, MB": round(limit / _MB),
        }
        what = f"peak MB of {size_bytes / _MB:.0f} MB to {kind}"
        yield row, Target(what, peak / _MB, most=limit / _MB)


def _peaks(folder: Path, kind: str, runs: int) -> Sequence[int]:
    out = folder.with_suffix(".gguf")
    command = [sys.executable, "-m", "fedpt.cli", "convert", "model", str(folder), str(out)]
    peaks = []
    for _ in range(runs):
        peaks.append(run_measured([*command, "--type", kind]).peak_bytes)
        out.unlink()
    return peaks


if __name__ == "__main__":
    main()

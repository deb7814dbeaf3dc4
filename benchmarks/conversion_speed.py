"""Time to F16 and Q8_0, against llama.cpp's own script on the same checkpoint.

`python -m benchmarks.conversion_speed SCRIPT`: SCRIPT is `vendor/llama.cpp/convert_hf_to_gguf.py`
of llama-cpp-python's source distribution, unpacked anywhere. Both sides are whole commands, from
start to the file on the disk, run by turns.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.interleaving import by_turns, median_ratio
from benchmarks.measured_child import Measured, run_measured
from benchmarks.random_checkpoint import write_random_checkpoint
from benchmarks.report import Row, Target, tell_conversions

_KINDS: Final = ("F16", "Q8_0")
_OURS: Final = "fedpt convert model"
_THEIRS: Final = "convert_hf_to_gguf.py"


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("script", type=Path, help="llama.cpp's convert_hf_to_gguf.py")
    parser.add_argument("--python", default=sys.executable, help="interpreter for the script")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the checkpoint")
    parser.add_argument("--checkpoint", type=Path, help="an existing one; unset: a random one")
    parser.add_argument("--runs", type=int, default=3, help="how often; medians are shown")
    parser.add_argument("--json", action="store_true", help="figures as JSON instead of a table")
    flags = parser.parse_args()
    rows: list[Row] = []
    targets: list[Target] = []
    with tempfile.TemporaryDirectory() as folder:
        source = flags.checkpoint or Path(folder) / "checkpoint"
        if not flags.checkpoint:
            write_random_checkpoint(source, int(flags.gigabytes * 1e9))
        for kind in _KINDS:
            results = _run(kind, source, Path(folder) / "out.gguf", flags)
            rows += [_row(kind, side, measured) for side, measured in results.items()]
            targets.append(_target(kind, results))
    tell_conversions(
        rows, targets, runs=flags.runs, how="runs by turns, medians", as_json=flags.json
    )


def _run(
    kind: str, source: Path, out: Path, flags: argparse.Namespace
) -> dict[str, list[Measured]]:
    ours = [sys.executable, "-m", "fedpt.cli", "convert", "model", str(source), str(out)]
    theirs = [flags.python, str(flags.script), str(source), "--outfile", str(out)]
    sides: dict[str, Callable[[int], Measured]] = {
        _OURS: partial(_once, [*ours, "--type", kind], out),
        _THEIRS: partial(_once, [*theirs, "--outtype", kind.lower()], out),
    }
    return by_turns(sides, turns=flags.runs, warm=False)


def _row(kind: str, side: str, measured: list[Measured]) -> Row:
    return {
        "type": kind,
        "side": side,
        "seconds": statistics.median(one.wall_s for one in measured),
        "processor seconds": statistics.median(one.processor_s for one in measured),
        "peak, MB": round(statistics.median(one.peak_bytes for one in measured) / 1e6),
    }


def _target(kind: str, results: dict[str, list[Measured]]) -> Target:
    ours, theirs = ([one.wall_s for one in results[side]] for side in (_OURS, _THEIRS))
    return Target(f"time to {kind}, ours by theirs", median_ratio(ours, theirs), most=1.0)


def _once(command: list[str], out: Path, _turn: int) -> Measured:
    measured = run_measured(command)
    out.unlink()
    return measured


if __name__ == "__main__":
    main()

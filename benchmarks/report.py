"""A benchmark's figures as a table or as JSON, with the machine they come from."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from benchmarks.subject import Subject

Value: TypeAlias = str | float | int | bool | None
Row: TypeAlias = dict[str, Value]

_ROOT: Final = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Target:
    """A figure that was asked for."""

    what: str
    value: float
    least: float | None = None
    most: float | None = None

    @property
    def is_met(self) -> bool:
        """Whether the figure is on the right side."""
        above = self.least is None or self.value >= self.least
        return above and (self.most is None or self.value <= self.most)

    def __str__(self) -> str:
        limit = f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"
        return f"{'met' if self.is_met else 'MISSED'}: {self.what} {self.value:.3g} ({limit})"


@dataclass(slots=True)
class Report:
    """What came out."""

    benchmark: str
    subject: Subject
    rows: list[Row] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def tell(self) -> None:
        """Write it to standard output, as the subject wants it."""
        sys.stdout.write((self._json() if self.subject.as_json else self._text()) + "\n")

    def _json(self) -> str:
        subject = self.subject
        content = {
            "benchmark": self.benchmark,
            "commit": commit(),
            "machine": machine(),
            "small": subject.small.name,
            "adapter": subject.adapter.name,
            "large": subject.large.name,
            "coefficients": list(subject.coefficients),
            "runs": subject.runs,
            "rows": self.rows,
            "targets": [
                {"what": one.what, "value": one.value, "least": one.least, "most": one.most}
                | {"met": one.is_met}
                for one in self.targets
            ],
            "notes": self.notes,
        }
        return json.dumps(content, indent=2)

    def _text(self) -> str:
        subject = self.subject
        head = [
            f"## {self.benchmark}",
            "",
            f"{machine()}; commit {commit()}; {subject.prompts} prompts, {subject.runs} runs,"
            f" medians; {subject.threads} threads; coefficients {tuple(subject.coefficients)}",
            "",
        ]
        tail = ["", *(f"- {one}" for one in [*self.targets, *self.notes])]
        return "\n".join([*head, *markdown_table(self.rows), *tail])


def tell_conversions(
    rows: Sequence[Row], targets: Sequence[Target], *, runs: int, how: str, as_json: bool
) -> None:
    """Write what conversions took to standard output.

    Args:
        rows: Of the table.
        targets: Below it.
        runs: How often each was run.
        how: In which order, and what is shown of them.
        as_json: The rows alone, as JSON.
    """
    if as_json:
        content = {"machine": machine(), "commit": commit(), "runs": runs, "rows": rows}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
        return
    head = [f"{machine()}; commit {commit()}; {runs} {how}", ""]
    tail = ["", *(f"- {target}" for target in targets)]
    sys.stdout.write("\n".join([*head, *markdown_table(rows), *tail]) + "\n")


def markdown_table(rows: Sequence[Row]) -> list[str]:
    """Lines of a table; the columns are the first row's."""
    if not rows:
        return []
    columns = list(rows[0])
    cells = [columns, *([_shown(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[place]) for line in cells) for place in range(len(columns))]
    lines = [
        "| "
        + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def machine() -> str:
    """Processor, cores and memory in a few words."""
    name = platform.processor() or platform.machine()
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    for line in _lines(Path("/proc/cpuinfo")):
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores of {name}, {memory_gb:.0f} GB, load {os.getloadavg()[0]:.1f}"


def commit() -> str:
    """The commit that is checked out; with a + if something was changed since."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _shown(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "NO"
        case float():
            return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"  # noqa: PLR2004  # digits
        case _:
            return str(value)

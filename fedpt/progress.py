"""Progress as data: long work reports it, and whoever called decides how to show it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a piece of work is."""

    done: int
    total: int
    note: str = ""


OnProgress: TypeAlias = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """For callers that show nothing."""

"""What is asked of a context, and how it is cut into calls of libllama. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive tokens of one sequence; logits are wanted after the last `wanted` of them."""

    sequence: int
    position: int
    tokens: Sequence[int]
    wanted: int = 1


class Piece(NamedTuple):
    """A stretch of a run that goes into one call."""

    run: int
    """Its place among the runs."""
    sequence: int
    position: int
    tokens: Sequence[int]
    wanted: int
    row: int
    """Which of the run's rows is the first that is wanted here."""


def pieces_of(runs: Sequence[Run], most: int) -> Iterator[list[Piece]]:
    """Runs, cut so that each call gets at most so many tokens; in their order."""
    pieces: list[Piece] = []
    room = most
    for index, run in enumerate(runs):
        begin, told = 0, len(run.tokens) - run.wanted
        while begin < len(run.tokens):
            end = min(begin + room, len(run.tokens))
            wanted, row = max(0, end - max(begin, told)), max(0, begin - told)
            position = run.position + begin
            pieces.append(Piece(index, run.sequence, position, run.tokens[begin:end], wanted, row))
            room -= end - begin
            begin = end
            if not room:
                yield pieces
                pieces, room = [], most
    if pieces:
        yield pieces

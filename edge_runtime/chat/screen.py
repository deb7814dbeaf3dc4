"""What a chat shows: answers as they come, notes that step back, tables where they help.

Answers and what was asked for go to standard output. The chat's own talk goes there too on a
terminal, and to standard error where somebody reads the answers from a pipe.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from edge_runtime.chat.commands import COMMANDS
from edge_runtime.chat.conversation import Answered
from edge_runtime.printable import printable
from edge_runtime.question import Piece
from edge_runtime.why import why_rows, why_text

_STEERED: Final = "bold cyan"
"""Bold, for those who want no colours."""
_KEYS: Final = (
    ("Ctrl-C", "stops an answer, or clears the line"),
    ("\\ at the end", "the question goes on in the next line"),
    ("//", "begins a question that begins with /"),
)


class ChatScreen:
    """A terminal, or a pipe."""

    def __init__(self) -> None:
        self._out = Console(highlight=False)
        self._is_terminal = self._out.is_terminal
        self._talk = self._out if self._is_terminal else Console(stderr=True, highlight=False)

    def welcome(self, name: str) -> None:
        """Say who is there; a pipe knows."""
        if self._is_terminal:
            self.note(f"{name}. /help lists the commands, Ctrl-D ends.\n")

    def note(self, text: str) -> None:
        """Say something in passing."""
        self._talk.print(Text(text, style="dim"), soft_wrap=True)

    def complain(self, text: str) -> None:
        """Say that something did not work."""
        self._talk.print(Text(text, style="yellow"), soft_wrap=True)

    def interrupted(self) -> None:
        """After Ctrl-C or Ctrl-D, which leave the cursor in mid-line."""
        if self._is_terminal:
            self._out.print()

    @contextmanager
    def answering(self) -> Iterator[Callable[[Piece], None]]:
        """Show an answer's pieces as they come; until the first, that something goes on."""
        waiting = self._out.status("", spinner="dots", spinner_style="dim")
        ends_line = True
        if self._is_terminal:
            waiting.start()

        def show(piece: Piece) -> None:
            nonlocal ends_line
            if not piece.text:
                return
            waiting.stop()
            text = printable(piece.text) if self._is_terminal else piece.text
            self._out.out(text, end="", highlight=False)
            self._out.file.flush()
            ends_line = text.endswith("\n")

        try:
            yield show
        finally:
            waiting.stop()
            if not ends_line:
                self._out.out("")

    def end_of_turn(self) -> None:
        """Some air."""
        if self._is_terminal:
            self._out.print()

    def help(self) -> None:
        """All commands."""
        rows = [(f"/{name} {takes}".strip(), what) for name, (takes, what) in COMMANDS.items()]
        self.rows([*rows, *_KEYS])

    def why(self, answer: Answered) -> None:
        """What an answer came from, and which parts of it were steered."""
        summary = answer.summary
        if summary is None:
            self.note("that answer was stopped: nothing more is known of it")
            return
        if not self._is_terminal:
            self._out.out(why_text(summary))
            return
        self.rows(why_rows(summary))
        can_mark = self._out.color_system is not None
        if can_mark and 0 < summary.steered_tokens < summary.tokens:
            self._out.print(_marked(answer.pieces), soft_wrap=True)

    def rows(self, rows: Sequence[tuple[str, str]]) -> None:
        """Names and values."""
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim" if self._is_terminal else "", no_wrap=True)
        table.add_column()
        for name, fact in rows:
            table.add_row(Text(name), Text(printable(fact)))
        self._out.print(table)


def _marked(pieces: Sequence[Piece]) -> Text:
    """The answer, its steered parts in another style than those of the board alone."""
    text = Text.assemble("\n", ("steered", _STEERED), " and by the board alone:\n")
    for piece in pieces:
        text.append(printable(piece.text), style=_STEERED if piece.is_steered else "")
    return text

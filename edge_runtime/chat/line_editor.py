"""Where a chat's lines come from: a terminal with history and editing, or a pipe.

A line that ends with a backslash goes on in the next one, in both.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from edge_runtime.ask_options import decoded, require_characters
from edge_runtime.chat.commands import COMMANDS
from fedpt.errors import UsageError

_GOES_ON: Final = "  "
_HISTORY_LINES: Final = 1000


class Lines(Protocol):
    """What the chat reads from."""

    def read(self, prompt: str, *, is_remembered: bool = True) -> str:
        """The next line, maybe of several; raises EOFError after the last."""


class PipeLines:
    """A pipe or a file: no prompt, no history."""

    def read(self, prompt: str, *, is_remembered: bool = True) -> str:
        """See `Lines`.

        Raises:
            UsageError: It is not UTF-8.
        """
        del prompt, is_remembered
        return _joined("", lambda _: self._line())

    def _line(self) -> str:
        line = sys.stdin.buffer.readline()
        if not line:
            raise EOFError
        return decoded(line.rstrip(b"\r\n"))


class TerminalLines:
    """A person at a terminal: arrows, history, the Tab key for commands."""

    def __init__(self, history: Path | None) -> None:
        """Make it, with the lines of before.

        Args:
            history: A file for its owner only; None: nothing is kept.
        """
        self._history = history
        try:
            import readline
        except ImportError:  # Python built without it: plain lines, no history
            self._readline = None
            return
        self._readline = readline
        readline.set_auto_history(False)  # "y" and taught answers are no questions
        readline.set_history_length(_HISTORY_LINES)
        readline.set_completer_delims(" ")
        readline.set_completer(completion)
        readline.parse_and_bind("tab: complete")
        self._read_history()

    def read(self, prompt: str, *, is_remembered: bool = True) -> str:
        """See `Lines`.

        Raises:
            UsageError: It is not UTF-8.
        """
        try:
            text = require_characters(_joined(_bold(prompt), input))
        except UnicodeDecodeError as error:
            raise UsageError("the line is not UTF-8") from error
        if is_remembered and text.strip():
            self._remember(text.replace("\n", " "))
        return text

    def _read_history(self) -> None:
        if self._history is None or self._readline is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            os.close(os.open(self._history, os.O_RDWR | os.O_CREAT, 0o600))
            self._history.chmod(0o600)
            self._readline.read_history_file(self._history)
        except OSError:  # a history is a convenience: a chat needs none
            self._history = None

    def _remember(self, text: str) -> None:
        if self._readline is None:
            return
        self._readline.add_history(text)
        if self._history is not None:
            try:
                self._readline.append_history_file(1, self._history)
            except OSError:
                self._history = None


def history_file() -> Path:
    """Where a user's programs keep what is not worth a backup."""
    base = os.environ.get("XDG_STATE_HOME", "")
    folder = Path(base) if base.startswith("/") else Path.home() / ".local" / "state"
    return folder / "fedpt" / "chat-history"


def completion(begun: str, number: int) -> str | None:
    """What the Tab key makes of the beginning of a word: the commands that begin so, in turn."""
    names = [f"/{name}" for name in COMMANDS if begun and f"/{name}".startswith(begun)]
    return f"{names[number]} " if number < len(names) else None


def _joined(prompt: str, read: Callable[[str], str]) -> str:
    lines: list[str] = []
    line = read(prompt)
    while line.endswith("\\"):
        lines.append(line[:-1])
        line = read(_GOES_ON)
    return "\n".join([*lines, line])


def _bold(prompt: str) -> str:
    """For readline, which must know what takes no room."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return prompt
    return f"\001\033[1m\002{prompt}\001\033[0m\002"

"""A command in a pseudo terminal: what a person types, and what the screen shows."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence
from typing import Final

WAIT_S: Final = 30.0
_ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x01\x02]")

CTRL_C: Final = "\x03"
CTRL_D: Final = "\x04"
UP: Final = "\x1b[A"


class Terminal:
    """A process whose controlling terminal is ours; ended with the block."""

    def __init__(
        self, command: Sequence[object], *, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it, on a screen of 24 by 100."""
        self._screen, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        self._process = subprocess.Popen(
            [str(word) for word in command],
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={**os.environ, "TERM": "xterm-256color", **(environment or {})},
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509  # no threads that matter here
        )
        os.close(inside)
        self.raw = ""
        self._seen = 0

    def __enter__(self) -> "Terminal":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        os.close(self._screen)

    @property
    def text(self) -> str:
        """All that was shown, without colours."""
        return _ESCAPES.sub("", self.raw).replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        """Press keys; a line ends with a newline."""
        os.write(self._screen, keys.encode())

    def say(self, line: str) -> str:
        """Type a line and wait for the next prompt; what was shown between."""
        self.type(f"{line}\n")
        self.expect("\n")  # its echo
        return self.expect("\n> ")

    def expect(self, text: str) -> str:
        """Wait until a text is shown; what came since the last one, with it."""
        assert self._comes(text, WAIT_S), f"{text!r} never came: {self.text!r}"
        begin, self._seen = self._seen, self.text.index(text, self._seen) + len(text)
        return self.text[begin : self._seen]

    def interrupt_line(self) -> str:
        """Press Ctrl-C in the middle of a line, and wait for the next prompt.

        A signal that comes while CPython's readline echoes a key is seen with the next one only;
        a person would press again.
        """
        for _ in range(int(WAIT_S)):
            self.type("\x03")
            if self._comes("\n> ", 1.0):
                break
        return self.expect("\n> ")

    def _comes(self, text: str, wait_s: float) -> bool:
        end = time.monotonic() + wait_s
        while text not in self.text[self._seen :]:
            if not self._read(end - time.monotonic()):
                return False
        return True

    def end(self) -> int:
        """Wait until the process ends by itself; its exit code."""
        end = time.monotonic() + WAIT_S
        while self._read(end - time.monotonic()):
            pass
        return self._process.wait(WAIT_S)

    def _read(self, wait_s: float) -> bool:
        """Take what comes next; False: nothing more does."""
        if wait_s <= 0 or not select.select([self._screen], [], [], wait_s)[0]:
            return False
        try:
            content = os.read(self._screen, 65_536)
        except OSError:  # the other side is closed
            return False
        self.raw += content.decode(errors="replace")
        return bool(content)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)

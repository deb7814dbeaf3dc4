"""Child processes that end with their parent, however the parent ends."""

import ctypes
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from fedpt.errors import FedptError

_logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1
_PARENT_VARIABLE: Final = "FEDPT_PARENT"
"""The parent's process id: it may end while its child is still importing."""

_PR_SET_NAME: Final = 15
_BOUND_NAME: Final = "fedpt-child"
"""What a process is called, for `ps` and its parent, that will end with its parent."""

_GRACE_S: Final = 5.0
_STDERR_LINES: Final = 40


def end_with_parent() -> None:
    """Ask the kernel to end this process when its parent ends, also by SIGKILL. Linux only."""
    if sys.platform == "linux":
        parent = int(os.environ.get(_PARENT_VARIABLE) or os.getppid())
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended in between
            os.kill(os.getpid(), signal.SIGKILL)
        ctypes.CDLL(None).prctl(_PR_SET_NAME, _BOUND_NAME.encode())


class ChildProcess:
    """`python -m MODULE ARGUMENTS` in the background, line by line.

    `on_line` gets each line of its standard output and `on_end` its exit code and the last lines of
    its standard error; both are called on a thread of the child's own.
    """

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        on_line: Callable[[bytes], None],
        on_end: Callable[[int, str], None],
        niceness: int = 0,
    ) -> None:
        """Start it.

        Args:
            module: What to run.
            arguments: Its command line.
            on_line: See above.
            on_end: See above.
            niceness: Of the processor, 0 to 19; from 1 on, the disk is for others first too.

        Raises:
            FedptError: The system cannot start a process.
        """
        command = [sys.executable, "-m", module, *arguments]
        if niceness:
            command = [*_idle_disk(), "nice", "-n", str(niceness), *command]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={**os.environ, _PARENT_VARIABLE: str(os.getpid())},
                start_new_session=True,  # Ctrl-C is for the parent, which then stops its children
            )
        except OSError as error:
            raise FedptError(f"cannot start {module}: {error.strerror}") from error
        self._errors: list[str] = []
        self._on_line = on_line
        self._on_end = on_end
        self._stderr_reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader = threading.Thread(target=self._read, name=module, daemon=True)
        self._stderr_reader.start()
        self._reader.start()

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def pause(self) -> bool:
        """Halt it at once, wherever it is; `go_on` undoes that.

        Returns:
            False: not yet, for it has not called `end_with_parent`; try again. A halted process
            that has not would outlive a killed parent, and never end.
        """
        if not self.is_running or not self._is_bound():
            return False
        self._process.send_signal(signal.SIGSTOP)
        return True

    def go_on(self) -> None:
        """Let it run again; nothing if it runs."""
        self._process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it: politely, then by force, also if it is paused. `on_end` is still called."""
        if self.is_running:
            self._process.terminate()
            self.go_on()  # what is halted does not hear that it shall end
            try:
                self._process.wait(_GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._reader.join(_GRACE_S)

    def _is_bound(self) -> bool:
        try:
            name = Path(f"/proc/{self.pid}/comm").read_text().strip()
        except OSError:
            return sys.platform != "linux"
        return name == _BOUND_NAME

    def _read(self) -> None:
        assert self._process.stdout is not None  # PIPE was asked for
        with self._process.stdout as stdout:
            for line in stdout:
                self._guard(self._on_line, line)
        code = self._process.wait()
        self._stderr_reader.join(_GRACE_S)
        self._guard(self._on_end, code, "\n".join(self._errors))

    def _read_errors(self) -> None:
        assert self._process.stderr is not None  # PIPE was asked for
        with self._process.stderr as stderr:
            for line in stderr:
                self._errors.append(line.decode(errors="replace").rstrip())
                del self._errors[:-_STDERR_LINES]

    def _guard(self, callback: Callable[..., None], *arguments: bytes | int | str) -> None:
        try:
            callback(*arguments)
        except Exception:  # it would end this thread: no more lines, and never an end
            _logger.exception("a callback failed")


def _idle_disk() -> list[str]:
    """Words before a command that let it have the disk when nobody else wants it."""
    return ["ionice", "-c", "3"] if shutil.which("ionice") else []

"""Named child processes with a log each, that a test can kill, wait for and read."""

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fedpt.drivers.child_process import end_with_parent

WAIT_S = 100.0
_END_S = 10.0


@dataclass
class RunningProcesses:
    """Their logs are in `folder`; they end with the test's process, however that ends."""

    folder: Path
    by_name: dict[str, subprocess.Popen] = field(default_factory=dict)

    def start(
        self, name: str, command: Sequence[object], environment: dict[str, str] | None = None
    ) -> None:
        """Start one; started again, it goes on writing to the same log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.by_name[name] = subprocess.Popen(
                [str(word) for word in command],
                stdout=log,
                stderr=log,
                env=environment,
                preexec_fn=end_with_parent,  # noqa: PLW1509  # no threads here
            )

    def log(self, name: str) -> str:
        """What a process has said so far."""
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until(self, claim: Callable[[], bool], what: str, *, told_by: str) -> None:
        """Return when the claim is true; else say what `told_by` has said."""
        end = time.monotonic() + WAIT_S
        while not claim():
            for name, process in self.by_name.items():
                assert process.poll() is None, f"{name} ended: {self.log(name)[-2000:]}"
            assert time.monotonic() < end, (
                f"not within {WAIT_S} s: {what}\n{self.log(told_by)[-3000:]}"
            )
            time.sleep(0.1)  # between two looks, not to synchronise

    def end(self) -> None:
        """End all of them, politely first."""
        for process in self.by_name.values():
            process.terminate()
        for process in self.by_name.values():
            try:
                process.wait(_END_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

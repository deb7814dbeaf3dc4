"""Two network namespaces with a line between them that delays and loses packets.

Linux and root only. Where the kernel has netem, the line is a veth pair with `tc netem` at both
ends. Where it has not (small virtual machines), it is a pair of TUN devices with `delay_line`
between them, which does the same with whole IP packets. The delay told is the **round trip**, half
of it each way; the loss is each way's.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple, Protocol

_CLONE_NEWNET: Final = 0x40000000
_FAR_ADDRESS: Final = "10.213.77.1"
_NEAR_ADDRESS: Final = "10.213.77.2"


class Moved(NamedTuple):
    """Bytes and packets at the device's end of the line, headers included."""

    bytes_up: int
    bytes_down: int

    def since(self, before: "Moved") -> "Moved":
        """The difference."""
        return Moved(self.bytes_up - before.bytes_up, self.bytes_down - before.bytes_down)


class _Line(Protocol):
    kind: str

    def shape(self, round_trip_s: float, loss: float) -> None: ...


class ShapedNetwork:
    """A far namespace for broker and worker, and a near one for the device."""

    def __init__(self, far: str, near: str, line: _Line) -> None:
        self._far = far
        self._near = near
        self._line = line
        self.host = _FAR_ADDRESS
        """Where the broker listens."""

    @property
    def kind(self) -> str:
        """What delays the packets."""
        return self._line.kind

    def far(self, command: Sequence[str]) -> list[str]:
        """A command line that runs there."""
        return ["ip", "netns", "exec", self._far, *command]

    def shape(self, round_trip_s: float, loss: float) -> None:
        """Delay every packet by half the round trip, and lose this share of them each way."""
        self._line.shape(round_trip_s, loss)

    def moved(self) -> Moved:
        """What has gone over the line so far."""
        command = ["ip", "-n", self._near, "-s", "-j", "link", "show", "dev", "line"]
        statistics = json.loads(_output(command))[0]["stats64"]
        return Moved(statistics["tx"]["bytes"], statistics["rx"]["bytes"])


@contextmanager
def shaped_network() -> Iterator[ShapedNetwork]:
    """Make it, and put this process's calling thread, and threads that it starts, in its near end.

    Raises:
        SystemExit: We are not root.
    """
    if os.geteuid() != 0:
        raise SystemExit("network namespaces need root: sudo, or run in a container as root")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # cleans up, as Ctrl-C does
    far, near = f"fedpt-far-{os.getpid()}", f"fedpt-near-{os.getpid()}"
    with ExitStack() as stack:
        for name in (far, near):
            _run("ip", "netns", "add", name)
            stack.callback(_run, "ip", "netns", "del", name, check=False)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        line = _veth(far, near) if _has_netem() else stack.enter_context(_tuns(far, near))
        for name, address in ((far, _FAR_ADDRESS), (near, _NEAR_ADDRESS)):
            _run("ip", "-n", name, "address", "add", f"{address}/24", "dev", "line")
            _run("ip", "-n", name, "link", "set", "line", "up")
        stack.enter_context(inside(near))
        yield ShapedNetwork(far, near, line)


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """The calling thread in a network namespace while the block runs."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as home:
        with Path(f"/run/netns/{namespace}").open() as there:
            if libc.setns(there.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        try:
            yield
        finally:
            libc.setns(home.fileno(), _CLONE_NEWNET)


class _Veth:
    kind = "veth with tc netem"

    def __init__(self, far: str, near: str) -> None:
        self._ends = (far, near)

    def shape(self, round_trip_s: float, loss: float) -> None:
        delay, lost = f"{round_trip_s * 500:.3f}ms", f"{loss * 100:g}%"
        for end in self._ends:
            _run(
                *("tc", "-n", end, "qdisc", "replace", "dev", "line", "root"),
                *("netem", "delay", delay, "loss", lost, "limit", "100000"),
            )


class _Tuns:
    kind = "TUN pair with benchmarks.delay_line (this kernel has no netem)"

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def shape(self, round_trip_s: float, loss: float) -> None:
        assert self._process.stdin is not None  # both are PIPEs
        assert self._process.stdout is not None
        self._process.stdin.write(f"{round_trip_s / 2} {loss}\n")
        self._process.stdin.flush()
        self._process.stdout.readline()


def _veth(far: str, near: str) -> _Line:
    _run(
        *("ip", "-n", far, "link", "add", "line", "type", "veth"), *("peer", "line", "netns", near)
    )
    return _Veth(far, near)


@contextmanager
def _tuns(far: str, near: str) -> Iterator[_Line]:
    command = [sys.executable, "-m", "benchmarks.delay_line", far, near]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None  # a PIPE
            if not process.stdout.readline():
                raise SystemExit("the delay line did not start")
            yield _Tuns(process)
        finally:
            process.kill()


def _has_netem() -> bool:
    """Whether the kernel knows it; asked with a device that is removed again."""
    probe = f"fedpt{os.getpid() % 100_000}"
    if _run("ip", "link", "add", probe, "type", "veth", check=False):
        return False
    try:
        return not _run(
            "tc", "qdisc", "add", "dev", probe, "root", "netem", "delay", "1ms", check=False
        )
    finally:
        _run("ip", "link", "del", probe, check=False)


def _run(*command: str, check: bool = True) -> int:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.returncode


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout

"""`python -m benchmarks.delay_line FAR NEAR`: what netem does, where a kernel has none.

Opens a TUN device `line` in each of two network namespaces and carries IP packets between them, in
order, each after a delay, some of them lost at random. Each line of standard input, `DELAY LOSS`
(seconds one way, a share), sets both. Ends with its standard input.
"""

import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from benchmarks.shaped_network import inside

_TUNSETIFF: Final = 0x400454CA
_IFF_TUN: Final = 0x0001
_IFF_NO_PI: Final = 0x1000
_PACKET_BYTES: Final = 65_536
_FOREVER_S: Final = 3600.0


@dataclass(slots=True)
class _Way:
    """One direction."""

    source: int
    target: int
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self, delay_s: float, loss: float, chance: random.Random) -> None:
        """Read what has come."""
        with suppress(BlockingIOError):
            while True:
                packet = os.read(self.source, _PACKET_BYTES)
                if chance.random() >= loss:
                    self.waiting.append((time.monotonic() + delay_s, packet))

    def give(self) -> float:
        """Write what is due; how long until the next is."""
        while self.waiting:
            left = self.waiting[0][0] - time.monotonic()
            if left > 0:
                return left
            with suppress(OSError):  # a device that is down loses it
                os.write(self.target, self.waiting.popleft()[1])
        return _FOREVER_S


def main() -> None:
    """Carry packets until standard input ends."""
    far, near = (_open_tun(name) for name in sys.argv[1:3])
    ways = (_Way(far, near), _Way(near, far))
    delay_s, loss, chance = 0.0, 0.0, random.Random(0)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        left = min(way.give() for way in ways)
        readable, _, _ = select.select([far, near, sys.stdin], [], [], left)
        for way in ways:
            if way.source in readable:
                way.take(delay_s, loss, chance)
        if sys.stdin in readable:
            if not (line := sys.stdin.readline()):
                return
            delay_s, loss = (float(value) for value in line.split())
            sys.stdout.write("set\n")
            sys.stdout.flush()


def _open_tun(namespace: str) -> int:
    with inside(namespace):
        tun = os.open(Path("/dev/net/tun"), os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", b"line", _IFF_TUN | _IFF_NO_PI))
        return tun


if __name__ == "__main__":
    main()

"""Damaged messages against both ends of the logit protocol: `python -m benchmarks.fuzz_protocol`.

Real tiny models, the real ways of worker and device; only MQTT is left out, for a broker would only
slow it down. Ends with 1 if anything but a FedptError came out, if the worker does not answer as
before, or if memory grew with the number of messages.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

_WARM_UP: Final = 0.1
"""Of all messages: before memory is compared, caches and the allocator's arenas have filled."""

_WAVERING_BYTES: Final = 12 * 2**20
_BYTES_A_MESSAGE: Final = 50
"""Memory may grow by so much: the allocator's wavering, and then less than anything that is kept of
a message would take."""

_PROMPT: Final = [1, 70, 80, 90]


def main() -> None:
    """Parse, run both, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="messages each way")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = [
            _requests(Path(folder), arguments.count, arguments.seed),
            _replies(Path(folder), arguments.count, arguments.seed),
        ]
    told = json.dumps(results) if arguments.json else "\n".join(map(_line, results))
    sys.stdout.write(f"{told}\n")
    if not all(result["is_sound"] for result in results):
        sys.exit(1)


def _requests(folder: Path, count: int, seed: int) -> dict[str, Any]:
    from tests.fakes.protocol_fuzz import fuzz_requests
    from tests.fakes.served_here import Board, ServedHere
    from tests.fakes.tiny_federation import make_tiny_federation

    served = ServedHere(make_tiny_federation(folder), folder / "coordinator")

    def answers() -> dict[str, list[int]]:
        with served.running(), Board(served, "judge") as board:
            return {where: board.answer(_PROMPT, where) for where in ("tokens", "logits")}

    before = answers()
    result = _measured(lambda part, salt: fuzz_requests(served, part, seed=seed + salt), count)
    result["is_sound"] &= answers() == before
    served.close()
    return {"what": "requests to a worker"} | result


def _replies(folder: Path, count: int, seed: int) -> dict[str, Any]:
    from tests.fakes.protocol_fuzz import FuzzedWorkers

    workers = FuzzedWorkers(folder, seed=seed)
    result = _measured(lambda part, _salt: workers.answers(part), count)
    failed = [one for one in result["outcomes"] if one.startswith("failed")]
    result["is_sound"] &= not failed and result["outcomes"]["steered"] > count / 4
    return {"what": "replies to a device"} | result


def _measured(run: Callable[[int, int], Counter[str]], count: int) -> dict[str, Any]:
    from tests.fakes.protocol_fuzz import quiet_log, rss_bytes

    warm_up = int(count * _WARM_UP)
    with quiet_log():
        outcomes = run(warm_up, 0)
        rss, began = rss_bytes(), time.monotonic()
        outcomes += run(count - warm_up, 1)
    grown = rss_bytes() - rss
    return {
        "count": count,
        "seconds": round(time.monotonic() - began, 1),
        "grown_bytes": grown,
        "outcomes": dict(outcomes.most_common()),
        "is_sound": grown < _WAVERING_BYTES + _BYTES_A_MESSAGE * count,
    }


def _line(result: dict[str, Any]) -> str:
    outcomes = ", ".join(f"{name} {number}" for name, number in result["outcomes"].items())
    return (
        f"{result['count']} {result['what']}: {'sound' if result['is_sound'] else 'NOT SOUND'},"
        f" {result['seconds']} s, memory {result['grown_bytes'] / 2**20:+.1f} MB; {outcomes}"
    )


if __name__ == "__main__":
    main()

"""The round trip of a logit request over Mosquitto on loopback.

An empty request, which the worker refuses without its model, and one that wants one row of a tiny
random model. A real worker process, a device with fedpt's own MQTT driver in this one.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.interleaving import by_turns
from benchmarks.over_a_network import WORKER_SETTINGS
from benchmarks.report import Report, Target
from benchmarks.served import FEDERATION, Place, running_broker, running_worker
from benchmarks.subject import arguments, subject_of
from benchmarks.tiny_model import write_tiny
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.ids import DeviceId
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import LogitReply, LogitRequest
from fedpt.wire.token_format import tokens_to_bytes
from fedpt.wire.topics import Topics

_EMPTY, _ROW = "empty, refused", "one row of a tiny model"
_DEVICE: Final = DeviceId("asking")
_SESSION: Final = b"measured"
_WANTED_MS: Final = 2.0
_SILENCE_S: Final = 10.0
_PARTS: Final = 20


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    parser = arguments(__doc__ or "", runs=1000, prompts=1)
    subject = subject_of(parser.parse_args(argv))
    report = Report("loopback_round_trip", subject)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tiny = folder / "tiny.gguf"
        write_tiny(subject.small, tiny)
        settings = WORKER_SETTINGS.model_copy(update={"steers_answers": False})
        broker = stack.enter_context(running_broker(Place()))
        served = replace(subject, large=tiny, threads=1)
        stack.enter_context(running_worker(Place(), broker, served, settings))
        asker = _Asker()
        link = MqttLink(broker, _DEVICE, on_message=asker.hear)
        link.subscribe(Topics(FEDERATION).inbox(_DEVICE, "logits"), qos=0)
        link.start(timeout_s=_SILENCE_S)
        stack.callback(link.stop)
        sides: dict[str, Callable[[int], float]] = {
            _EMPTY: lambda turn: asker.ask(link, b"", turn),
            _ROW: lambda turn: asker.ask(link, tokens_to_bytes([100 + turn % 100]), turn),
        }
        results = by_turns(sides, turns=subject.runs)
    for name, seconds in results.items():
        report.rows.append(
            {
                "request": name,
                "p50 ms": 1000 * statistics.median(seconds),
                "p95 ms": 1000 * statistics.quantiles(seconds, n=_PARTS)[-1],
                "best ms": 1000 * min(seconds),
            }
        )
    report.targets.append(
        Target(
            "p50 of an empty request, ms",
            1000 * statistics.median(results[_EMPTY]),
            most=_WANTED_MS,
        )
    )
    report.tell()


class _Asker:
    """Sends a request and waits for its reply."""

    def __init__(self) -> None:
        self._came = threading.Event()

    def hear(self, message: Received) -> None:
        """On the network thread."""
        decode(message.payload, LogitReply)
        self._came.set()

    def ask(self, link: MqttLink, tokens: bytes, turn: int) -> float:
        """How long it took, s."""
        request = LogitRequest(
            request=turn, session=_SESSION, position=0, tokens=tokens, rows=1, largest=16
        )
        topic = Topics(FEDERATION).device(_DEVICE, "logits")
        self._came.clear()
        began = time.perf_counter()
        link.publish_now(Publication(topic, encode(request), qos=0, expiry_s=10))
        if not self._came.wait(_SILENCE_S):
            raise SystemExit("the worker is silent")
        return time.perf_counter() - began


if __name__ == "__main__":
    main()

"""A logit worker with many devices at once, against llama.cpp's own batched decode.

Devices are simulated by one process that speaks MQTT on a bare socket: each sends its next request
as soon as it has its reply, single tokens or drafts of eight, every row wanted. The bare loop puts
as many sequences through one context with the same settings, and looks for each row's likeliest
token. Tokens a second of the large model; latency of the worker's replies.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import msgspec
import numpy as np

from benchmarks.bare_llama import BareContext, BareModel
from benchmarks.interleaving import by_turns, median_ratio
from benchmarks.over_a_network import WORKER_SETTINGS
from benchmarks.raw_mqtt import RawMqtt, publication
from benchmarks.report import Report, Target
from benchmarks.served import FEDERATION, WORKER, Place, running_broker, running_worker
from benchmarks.subject import Subject, arguments, subject_of
from fedpt.gguf_file import read_gguf
from fedpt.ids import DeviceId
from fedpt.settings import BrokerSettings
from fedpt.vocabulary import vocabulary_of
from fedpt.wire.codec import encode
from fedpt.wire.messages import LogitReply, LogitRequest, Opening
from fedpt.wire.token_format import id_sets_to_bytes, tokens_to_bytes
from fedpt.wire.topics import Topics

_DEVICES: Final = (1, 2, 4, 8, 16)
_ROWS: Final = (1, 8)
_PROMPT_TOKENS: Final = 48
_CANDIDATES: Final = 16
_LARGEST: Final = 16
_SILENCE_S: Final = 120.0
_WANTED: Final = 0.9
_PARTS: Final = 20
"""Of a hundred percent: the 95th percentile is the 19th border."""


@dataclass(slots=True)
class Served:
    """What a side has done in a turn."""

    tokens: int = 0
    seconds: float = 0.0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def per_s(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    parser = arguments(__doc__ or "", runs=5, prompts=1)
    parser.add_argument("--steps", type=int, default=16, help="requests a device and turn")
    parser.add_argument("--devices", type=int, nargs="+", default=_DEVICES, metavar="N")
    flags = parser.parse_args(argv)
    subject = subject_of(flags)
    report = Report("worker_throughput", subject)
    settings = WORKER_SETTINGS.model_copy(
        update={"sessions": max(flags.devices), "steers_answers": False, "context_tokens": 16_384}
    )
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(Place()))
        model = stack.enter_context(BareModel(subject.large))
        context = stack.enter_context(
            BareContext(
                model,
                tokens=settings.context_tokens,
                threads=subject.threads,
                sequences=settings.sessions,
            )
        )
        for rows in _ROWS:
            for count in flags.devices:
                with (  # a new worker: what others have left in a shared cache takes time
                    running_worker(Place(), broker, subject, settings),
                    _devices(subject, broker, count, rows) as devices,
                ):
                    sides: dict[str, Callable[[int], Served]] = {
                        "worker": partial(_ask, devices, flags.steps),
                        "bare": partial(_bare, context, (count, rows, flags.steps)),
                    }
                    _add(report, by_turns(sides, turns=subject.runs), (count, rows))
    report.notes.append("bare: every row's likeliest token is looked for; no selection, no network")
    report.tell()


def _add(report: Report, results: dict[str, list[Served]], kind: tuple[int, int]) -> None:
    count, rows = kind
    speeds = {name: [one.per_s for one in turns] for name, turns in results.items()}
    latencies = sorted(one for turn in results["worker"] for one in turn.latencies_s)
    ratio = median_ratio(speeds["worker"], speeds["bare"])
    report.rows.append(
        {
            "devices": count,
            "tokens a request": rows,
            "worker, tokens/s": statistics.median(speeds["worker"]),
            "bare, tokens/s": statistics.median(speeds["bare"]),
            "of bare": ratio,
            "p50 ms": 1000 * statistics.median(latencies),
            "p95 ms": 1000 * statistics.quantiles(latencies, n=_PARTS)[-1],
        }
    )
    what = f"worker by bare, {count} devices, {rows} tokens"
    report.targets.append(Target(what, ratio, least=_WANTED))


class _Devices:
    """Simulated devices on one connection, their requests encoded beforehand."""

    def __init__(self, link: RawMqtt, names: list[DeviceId], rows: int, opening: Opening) -> None:
        self.link = link
        self.names = names
        self.rows = rows
        self._topics = Topics(FEDERATION)
        self._rng = np.random.default_rng(len(names) * 100 + rows)
        self._opening = opening

    def first(self, device: DeviceId) -> bytes:
        """A prompt, to any worker."""
        return self._request(device, 0, _PROMPT_TOKENS, 1)

    def next(self, device: DeviceId, step: int) -> bytes:
        """The next tokens, to the worker that has the session."""
        return self._request(device, _PROMPT_TOKENS + step * self.rows, self.rows, self.rows)

    def _request(self, device: DeviceId, position: int, count: int, rows: int) -> bytes:
        tokens = self._rng.integers(100, 300, count).tolist()
        candidates = [np.sort(self._rng.choice(300, _CANDIDATES, replace=False))] * rows
        request = LogitRequest(
            request=1,
            session=device.encode().rjust(8)[-8:],
            position=position,
            tokens=tokens_to_bytes(tokens),
            rows=rows,
            largest=_LARGEST,
            candidates=id_sets_to_bytes(candidates),
            opening=None if position else self._opening,
        )
        topic = (
            self._topics.worker_logits(WORKER, device)
            if position
            else self._topics.device(device, "logits")
        )
        return publication(topic, encode(request))


@contextmanager
def _devices(subject: Subject, broker: BrokerSettings, count: int, rows: int) -> Iterator[_Devices]:
    names = [DeviceId(f"sim{rows}x{count}n{number}") for number in range(count)]
    opening = Opening(vocabulary=vocabulary_of(read_gguf(subject.large)).sha256)
    with RawMqtt(broker.host, broker.port, f"simulated-{rows}-{count}") as link:
        link.subscribe(Topics(FEDERATION).device("+", "inbox/logits"))
        yield _Devices(link, names, rows, opening)


def _ask(devices: _Devices, steps: int, _turn: int) -> Served:
    """Every device asks, and again when it has its reply; the prompts are not timed."""
    inbox = {Topics(FEDERATION).inbox(name, "logits"): name for name in devices.names}
    devices.link.send(b"".join(devices.first(name) for name in devices.names))
    for _ in devices.names:
        _reply(devices.link, inbox)
    requests = {name: [devices.next(name, n) for n in range(steps)] for name in devices.names}
    served, sent_at = Served(), dict[DeviceId, float]()
    began = time.perf_counter()
    for name, waiting in requests.items():
        sent_at[name] = time.perf_counter()
        devices.link.send(waiting.pop(0))
    for _ in range(steps * len(requests)):
        name = _reply(devices.link, inbox)
        served.latencies_s.append(time.perf_counter() - sent_at[name])
        if requests[name]:
            sent_at[name] = time.perf_counter()
            devices.link.send(requests[name].pop(0))
    served.seconds = time.perf_counter() - began
    served.tokens = steps * len(requests) * devices.rows
    return served


_pending: list[tuple[str, bytes]] = []


def _reply(link: RawMqtt, inbox: dict[str, DeviceId]) -> DeviceId:
    """Whose reply comes next.

    Raises:
        SystemExit: None comes, or it is a refusal.
    """
    while not _pending:
        _pending.extend(link.received(_SILENCE_S))
    topic, payload = _pending.pop(0)
    reply = msgspec.msgpack.decode(payload, type=LogitReply)
    if reply.code:
        raise SystemExit(f"the worker refuses: {reply.reason} ({reply.code})")
    return inbox[topic]


def _bare(context: BareContext, kind: tuple[int, int, int], turn: int) -> Served:
    count, rows, steps = kind
    rng = np.random.default_rng(turn)
    context.clear()
    for sequence in range(count):
        context.prefill(rng.integers(100, 300, _PROMPT_TOKENS).tolist(), sequence)
    texts = [rng.integers(100, 300, (count, rows)).tolist() for _ in range(steps)]
    began = time.perf_counter()
    for step, tokens in enumerate(texts):
        context.decode_many(tokens, _PROMPT_TOKENS + step * rows)
    return Served(steps * count * rows, time.perf_counter() - began)


if __name__ == "__main__":
    main()

"""Steered decode over a line with delay and loss, against one round trip a token.

Worker and Mosquitto in one network namespace, the device in another. Greedy; each way has its own
conversation with the worker, which has read the prompt before the clock starts (`--whole`: it
starts with the question). The delay is the round trip.
"""

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial

from benchmarks.interleaving import by_turns, median_ratio
from benchmarks.remote_device import (
    RemoteAnswer,
    RemoteDevice,
    Way,
    remote_device,
    small_texts,
)
from benchmarks.report import Report, Target
from benchmarks.served import Place, running_broker, running_worker
from benchmarks.shaped_network import shaped_network
from benchmarks.steered_decode import Answered, Ours
from benchmarks.subject import arguments, encoded_prompts, subject_of
from coordinator.settings import WorkerSettings
from fedpt.drivers.llama import LlamaModel

_LOGITS, _TOKENS, _ONE, _ONE_FEW, _LOCAL = "logits", "tokens", "one whole row", "one row", "local"
_WAYS = (
    Way(_LOGITS),
    Way(_TOKENS, at_worker=True),
    Way(_ONE, most_rows=1, whole_rows=True),
    Way(_ONE_FEW, most_rows=1),
)
_WANTED = {100: 3.0, 200: 4.5}
"""Round trip in ms, and how many times faster than one round trip a token we shall be."""

WORKER_SETTINGS = WorkerSettings(
    context_tokens=8192, rows_per_s=1e6, burst_rows=1e9, largest_logits=4096
)
"""No limits that a benchmark would run into."""


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    parser = arguments(__doc__ or "", runs=1, prompts=6)
    parser.add_argument(
        "--round-trips", type=float, nargs="+", default=[10, 50, 100, 200], help="ms", metavar="MS"
    )
    parser.add_argument(
        "--loss", type=float, nargs="+", default=[0, 2], help="%% of packets, each way", metavar="P"
    )
    parser.add_argument("--whole", action="store_true", help="time the reading of the prompt too")
    flags = parser.parse_args(argv)
    subject = subject_of(flags)
    report = Report("over_a_network", subject)
    with ExitStack() as stack:
        network = stack.enter_context(shaped_network())
        place = Place(network.host, network.far)
        broker = stack.enter_context(running_broker(place))
        stack.enter_context(running_worker(place, broker, subject, WORKER_SETTINGS))
        model = stack.enter_context(LlamaModel(subject.small))
        prompts = encoded_prompts(model, subject)
        texts = stack.enter_context(small_texts(model, subject))
        devices = {
            way.name: stack.enter_context(remote_device(texts, subject, way, broker=broker))
            for way in _WAYS
        }
        for device in devices.values():
            device.await_worker(prompts[0])
        local = Ours(stack, model, subject)
        report.notes.append(f"the line: {network.kind}; the delay is the round trip")
        for loss in flags.loss:
            for round_trip_ms in flags.round_trips:
                network.shape(round_trip_ms / 1000, loss / 100)
                _measure(
                    report,
                    (round_trip_ms, loss),
                    _sides(devices, prompts, is_read=not flags.whole),
                    _local(local, prompts, is_read=not flags.whole),
                )
    report.notes.append(
        f"tokens/s of {'whole answers' if flags.whole else 'answers, the prompt read before'};"
        " one whole row: float32, one round trip a token; one row: the same with few logits"
    )
    report.tell()


def _sides(
    devices: dict[str, RemoteDevice], prompts: list[list[int]], *, is_read: bool
) -> dict[str, Callable[[int], RemoteAnswer]]:
    def side(device: RemoteDevice, turn: int) -> RemoteAnswer:
        return device.answer(prompts[turn % len(prompts)], is_read=is_read)

    return {name: partial(side, device) for name, device in devices.items()}


def _local(ours: Ours, prompts: list[list[int]], *, is_read: bool) -> Callable[[int], Answered]:
    return lambda turn: ours.answer(prompts[turn % len(prompts)], is_read=is_read)


def _measure(
    report: Report,
    line: tuple[float, float],
    sides: dict[str, Callable[[int], RemoteAnswer]],
    local: Callable[[int], Answered],
) -> None:
    subject, (round_trip_ms, loss) = report.subject, line
    results = by_turns(sides, turns=subject.runs * subject.prompts, warm=False)
    at_home = [local(turn) for turn in range(len(results[_LOGITS]))]
    speeds = {name: [one.per_s for one in turns] for name, turns in results.items()}
    speeds[_LOCAL] = [one.per_s for one in at_home]
    is_same = all(
        answer.tokens == here.tokens and not answer.fallback
        for turns in results.values()
        for answer, here in zip(turns, at_home, strict=True)
    )
    ratio = median_ratio(speeds[_LOGITS], speeds[_ONE])
    trips = [len(one.tokens) / one.tally.round_trips for one in results[_LOGITS]]
    report.rows.append(
        {
            "ms": f"{round_trip_ms:g}",
            "loss %": f"{loss:g}",
            **{name: statistics.median(values) for name, values in speeds.items()},
            "logits by one whole row": ratio,
            "by one row": median_ratio(speeds[_LOGITS], speeds[_ONE_FEW]),
            "by local": median_ratio(speeds[_LOGITS], speeds[_LOCAL]),
            "tokens a trip": statistics.median(trips),
            "same output": is_same,
        }
    )
    if round_trip_ms in _WANTED and not loss:
        what = f"logits by one whole row a round trip at {round_trip_ms:g} ms"
        report.targets.append(Target(what, ratio, least=_WANTED[int(round_trip_ms)]))


if __name__ == "__main__":
    main()

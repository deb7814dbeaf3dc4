"""Bytes per generated token, up and down, with everything included.

At the MQTT level (requests with candidates and rejected drafts, replies, topics, headers), and what
the line's counters saw with TCP/IP. A round trip of 100 ms unless told otherwise, for the longer it
is, the more drafts go into a request. Whole answers, the questions' own tokens included.
"""

import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from benchmarks.interleaving import by_turns
from benchmarks.over_a_network import WORKER_SETTINGS
from benchmarks.remote_device import RemoteAnswer, RemoteDevice, Way, remote_device, small_texts
from benchmarks.report import Report, Row, Target
from benchmarks.served import Place, running_broker, running_worker
from benchmarks.shaped_network import Moved, ShapedNetwork, shaped_network
from benchmarks.subject import Subject, arguments, encoded_prompts, subject_of
from benchmarks.wider_vocabulary import write_wider
from fedpt.decoding.sampling import Sampling
from fedpt.drivers.llama import LlamaModel

_FEW: Final = "f16, greedy"
_WAYS: Final = (
    Way(_FEW),
    Way("q8, greedy", precision="q8"),
    Way("f16, sampling", sampling=Sampling(temperature=0.7, top_p=0.9, seed=1)),
    Way("tokens, greedy", at_worker=True),
)
_MOST_BYTES: Final = 320
_LEAST_CERTAIN: Final = 0.99
_HALF_BYTES: Final = 2


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    parser = arguments(__doc__ or "", runs=1, prompts=12)
    parser.add_argument("--round-trip", type=float, default=100.0, help="ms", metavar="MS")
    parser.add_argument(
        "--wide", type=int, default=151_936, help="a second vocabulary, tokens; 0: none"
    )
    flags = parser.parse_args(argv)
    subject = subject_of(flags)
    report = Report("bytes_per_token", subject)
    with ExitStack() as stack:
        network = stack.enter_context(shaped_network())
        network.shape(flags.round_trip / 1000, 0.0)
        for one in _subjects(stack, subject, flags.wide):
            _measure(report, network, one)
    report.notes += [
        f"the line: {network.kind}, a round trip of {flags.round_trip:g} ms",
        "the wide vocabulary is the same pair with made-up tokens, like real ones but weaker",
        "TCP/IP: all packets of that connection in both directions, acknowledgements included",
    ]
    report.tell()


def _subjects(stack: ExitStack, subject: Subject, wide: int) -> Iterator[Subject]:
    """The subject, and the same with a wider vocabulary."""
    yield subject
    if not wide:
        return
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    small, large = folder / "small.gguf", folder / "large.gguf"
    write_wider(subject.small, small, tokens=wide)
    write_wider(subject.large, large, tokens=wide)
    yield replace(subject, small=small, large=large)


def _measure(report: Report, network: ShapedNetwork, subject: Subject) -> None:
    place = Place(network.host, network.far)
    with ExitStack() as stack:
        broker = stack.enter_context(running_broker(place))
        stack.enter_context(running_worker(place, broker, subject, WORKER_SETTINGS))
        model = stack.enter_context(LlamaModel(subject.small))
        texts = stack.enter_context(small_texts(model, subject))
        prompts = encoded_prompts(model, subject)
        for way in _WAYS:
            with remote_device(texts, subject, way, broker=broker) as device:
                device.await_worker(prompts[0])
                answers, moved = _answers(device, prompts, network, runs=subject.runs)
            report.rows.append(_row(way, answers, moved, vocabulary=model.vocabulary_size))
            if way.name == _FEW:
                report.targets += _targets(report.rows[-1])


def _answers(
    device: RemoteDevice, prompts: list[list[int]], network: ShapedNetwork, *, runs: int
) -> tuple[list[RemoteAnswer], Moved]:
    """One device at a time is connected, so what the line carries is its own."""
    before = network.moved()
    sides = {"": lambda turn: device.answer(prompts[turn % len(prompts)])}
    answers = by_turns(sides, turns=runs * len(prompts), warm=False)[""]
    return answers, network.moved().since(before)


def _row(way: Way, answers: list[RemoteAnswer], moved: Moved, *, vocabulary: int) -> Row:
    tokens = sum(len(one.tokens) for one in answers)
    up = sum(one.traffic.bytes_up for one in answers) / tokens
    down = sum(one.traffic.bytes_down for one in answers) / tokens
    rows = sum(one.tally.rows for one in answers)
    certain = sum(one.tally.certain_at_once for one in answers)
    trips = sum(one.tally.round_trips for one in answers)
    return {
        "way": way.name,
        "vocabulary": vocabulary,
        "bytes/token": up + down,
        "up": up,
        "down": down,
        "with TCP/IP": (moved.bytes_up + moved.bytes_down) / tokens,
        "of a whole f16 row": f"1/{_HALF_BYTES * vocabulary / (up + down):.0f}",
        "certain at once": certain / rows if rows else None,
        "tokens a trip": tokens / trips,
        "largest doubt": max(one.tally.largest_doubt for one in answers),
        "median answer, bytes": statistics.median(
            one.traffic.bytes_up + one.traffic.bytes_down for one in answers
        ),
        "fell back": sum(bool(one.fallback) for one in answers),
    }


def _targets(row: Row) -> list[Target]:
    vocabulary, total, certain = row["vocabulary"], row["bytes/token"], row["certain at once"]
    return [
        Target(f"bytes a token at {vocabulary}", float(total or 0), most=_MOST_BYTES),
        Target(f"certain at once at {vocabulary}", float(certain or 0), least=_LEAST_CERTAIN),
    ]


if __name__ == "__main__":
    main()

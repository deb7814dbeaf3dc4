"""Answers of the assistant while the board trains: halted for them, not halted, and no training.

Tokens a second after the first one of each answer, and the first token's delay. The training is a
real one, the small model's, in its child process under the daemon's own desk; before each question
it is at work. One process trains through all prompts of a turn; another turn has a new one.
"""

import argparse
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.asked_assistant import ask
from benchmarks.interleaving import by_turns, median_ratio
from benchmarks.report import Report, Target
from benchmarks.subject import Subject, arguments, subject_of
from converters.tensor_names import linear_shapes
from edge_runtime.assistant import Assistant
from edge_runtime.data.store import DataStore
from edge_runtime.settings import AssistantSettings, DeviceSettings, TrainingConditions
from edge_runtime.training_desk import TrainingDesk, TrainingOver
from edge_runtime.training_job import TrainingStep
from fedpt.adapters import AdapterManifest, adapter_to_bytes, initial_adapter, module_kinds
from fedpt.blobs import BlobStore
from fedpt.drivers.llama import LlamaModel
from fedpt.examples import read_examples
from fedpt.wire.messages import RoundAnnouncement, SteeringCoefficients, TrainingPlan

_NONE, _HALTED, _BESIDE = "no training", "training, halted", "training, not halted"
_FOR_EVER: Final = TrainingPlan(
    epochs=10_000, learning_rate=1e-4, batch_examples=4, context_tokens=256
)
_WAIT_S: Final = 120.0
_GRACE_S: Final = 0.2
"""Shorter than a board's, to save time: the training is at work before each question anyway."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """The answers of one turn."""

    per_s: float
    """Tokens a second after the first: the median of the answers."""
    first_token_s: float
    paused_s: float


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and tell."""
    flags = _flags().parse_args(argv)
    subject = subject_of(flags)
    report = Report("answer_during_training", subject)
    with ExitStack() as stack:
        model = stack.enter_context(LlamaModel(subject.small))
        bench = _Bench(model, subject, flags.niceness)
        results = by_turns(
            {
                _NONE: lambda _: bench.without(),
                _HALTED: lambda _: bench.during(is_halted=True),
                _BESIDE: lambda _: bench.during(is_halted=False),
            },
            turns=subject.runs,
            warm=False,
        )
    speeds = {name: [one.per_s for one in runs] for name, runs in results.items()}
    for name, runs in results.items():
        report.rows.append(
            {
                "side": name,
                "tokens/s": statistics.median(speeds[name]),
                "of no training": median_ratio(speeds[name], speeds[_NONE]),
                "first token, ms": 1000 * statistics.median(one.first_token_s for one in runs),
                "halted, s": statistics.median(one.paused_s for one in runs),
            }
        )
    ratio = median_ratio(speeds[_HALTED], speeds[_NONE])
    report.targets.append(Target("halted by no training", ratio, least=0.8))
    report.notes.append(f"training's niceness is {flags.niceness}, its threads are all cores")
    report.tell()


def _flags() -> argparse.ArgumentParser:
    parser = arguments(__doc__ or "", runs=3, prompts=8)
    default = DeviceSettings.model_fields["training_niceness"].default
    parser.add_argument("--niceness", type=int, default=default, help="of the training process")
    return parser


class _Bench:
    """The model, and questions to it."""

    def __init__(self, model: LlamaModel, subject: Subject, niceness: int) -> None:
        self._model = model
        self._subject = subject
        self._niceness = niceness
        self._questions = read_examples(subject.data)[: subject.prompts]

    def without(self) -> _Answered:
        with self._assistant() as assistant:
            return self._ask_all(assistant, before=lambda: None, paused_s=lambda: 0.0)

    def during(self, *, is_halted: bool) -> _Answered:
        with (
            tempfile.TemporaryDirectory() as folder,
            _training(self._settings(Path(folder), is_halted=is_halted), self._model) as desk,
            self._assistant(desk) as assistant,
        ):
            return self._ask_all(
                assistant,
                before=partial(_wait_for_work, desk),
                paused_s=lambda: desk.view.paused_s,
            )

    def _ask_all(
        self, assistant: Assistant, *, before: Callable[[], None], paused_s: Callable[[], float]
    ) -> _Answered:
        ask(assistant, self._questions[0])  # the model's pages, and the caches
        answers = []
        for question in self._questions:
            before()
            answers.append(ask(assistant, question))
        decoded = [one for one in answers if one.tokens > 1]
        return _Answered(
            statistics.median(
                (one.tokens - 1) / (one.seconds - one.first_token_s) for one in decoded
            ),
            statistics.median(one.first_token_s for one in answers),
            paused_s(),
        )

    @contextmanager
    def _assistant(self, desk: TrainingDesk | None = None) -> Iterator[Assistant]:
        subject = self._subject
        settings = AssistantSettings(
            context_tokens=subject.context_tokens,
            threads=subject.threads,
            answer_tokens=subject.tokens,
        )
        hook = {} if desk is None else {"undisturbed": desk.undisturbed}
        assistant = Assistant(self._model, settings, **hook)
        try:
            assistant.switch("measured", subject.adapter)
            yield assistant
        finally:
            assistant.close()

    def _settings(self, folder: Path, *, is_halted: bool) -> DeviceSettings:
        conditions = TrainingConditions(
            mains_power=False,
            most_celsius=150,
            most_load=1000,
            least_free_memory_mb=0,
            least_free_disk_mb=0,
            pause_for_answers=is_halted,
            answer_grace_s=_GRACE_S,
        )
        data = DataStore(folder / "private.db")
        data.add(read_examples(self._subject.data))
        return DeviceSettings(
            name="measured",
            small=self._subject.small,
            data=data.path,
            state_dir=folder,
            training_niceness=self._niceness,
            training_conditions=conditions,
        )


@contextmanager
def _training(settings: DeviceSettings, model: LlamaModel) -> Iterator[TrainingDesk]:
    """A training at work, watched as the daemon does."""
    items: queue.SimpleQueue[TrainingStep | TrainingOver] = queue.SimpleQueue()
    desk = TrainingDesk(settings, on_step=items.put, on_over=items.put)
    store = BlobStore(settings.state_dir / "blobs")
    if not desk.start(_round(model, store), store):
        raise SystemExit(f"training does not start: {desk.view.why_not}")
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(desk, items, is_over))
    watcher.start()
    try:
        _wait(lambda: desk.view.step is not None)
        yield desk
    finally:
        is_over.set()
        watcher.join()
        desk.stop()


def _watch(
    desk: TrainingDesk,
    items: "queue.SimpleQueue[TrainingStep | TrainingOver]",
    is_over: threading.Event,
) -> None:
    while not is_over.is_set():
        try:
            item = items.get(timeout=0.05)
        except queue.Empty:
            item = None
        if isinstance(item, TrainingStep):
            desk.hear(item)
        desk.watch()


def _round(model: LlamaModel, store: BlobStore) -> RoundAnnouncement:
    """One that trains a new adapter for longer than anybody measures."""
    shapes = linear_shapes(model.file)
    manifest = AdapterManifest(
        base_weights=model.weights, rank=8, alpha=16.0, target_modules=module_kinds(shapes)
    )
    adapter = initial_adapter(shapes, manifest, np.random.default_rng(0))
    return RoundAnnouncement(
        run="0123456789abcdef",
        round=1,
        phase="training",
        selected=["measured"],
        adapter=store.put(adapter_to_bytes(adapter)),
        training=_FOR_EVER,
        deadline_unix_s=0.0,
        coefficients=SteeringCoefficients(),
    )


def _wait_for_work(desk: TrainingDesk) -> None:
    """Until it has got on by a step: it runs, and its share of the processor is spent."""
    before = desk.view.step
    _wait(lambda: desk.view.step != before)


def _wait(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not claim():
        if time.monotonic() > deadline:
            raise SystemExit("the training does not get on")
        time.sleep(0.02)


if __name__ == "__main__":
    main()

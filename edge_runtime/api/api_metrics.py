"""Figures of assistant and training for Prometheus, counted since the daemon's start.

In a registry of our own; made of the counts when they are asked for, as the coordinator's are.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from edge_runtime.api.training_metrics import training_families
from edge_runtime.question import AnswerSummary
from edge_runtime.training_view import TrainingView

if TYPE_CHECKING:
    from prometheus_client import Metric

_TEXTS: Final = {
    "tokens": "Tokens of answers.",
    "steered_tokens": "Of these, steered ones.",
    "prompt_tokens": "Tokens of questions.",
    "cached_prompt_tokens": "Of these, not computed again.",
    "round_trips": "Requests to the large model.",
    "bytes_up": "Bytes sent to the large model.",
    "bytes_down": "Bytes received from the large model.",
    "answer_seconds": "Time that answers took, s.",
    "fallbacks": "Answers that were not steered, or not to their end, though wanted so.",
    "refusals": "Questions refused because too many waited.",
    "hang_ups": "Answers whose client hung up.",
}


class ApiMetrics:
    """Counts answers; from any thread."""

    def __init__(
        self, waiting: Callable[[], int], training: Callable[[], TrainingView] = TrainingView
    ) -> None:
        """Begin at 0.

        Args:
            waiting: Tells how many questions wait.
            training: Tells how training is.
        """
        self._waiting = waiting
        self._training = training
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._seconds = 0.0
        self._answers: Counter[str] = Counter(local=0, steered=0)

    def count_answer(self, summary: AnswerSummary) -> None:
        """An answer was given to its end."""
        steps = summary.steps
        with self._lock:
            self._answers[summary.mode] += 1
            self._seconds += summary.seconds
            self._counts.update(
                tokens=summary.tokens,
                steered_tokens=summary.steered_tokens,
                prompt_tokens=summary.prompt_tokens,
                cached_prompt_tokens=summary.cached_tokens,
                fallbacks=int(bool(summary.fallback)),
                round_trips=steps.round_trips if steps else 0,
                bytes_up=steps.bytes_up if steps else 0,
                bytes_down=steps.bytes_down if steps else 0,
            )

    def count_refusal(self) -> None:
        """A question came when too many waited."""
        with self._lock:
            self._counts["refusals"] += 1

    def count_hang_up(self) -> None:
        """A client went before its answer's end."""
        with self._lock:
            self._counts["hang_ups"] += 1

    def page(self) -> bytes:
        """All of it in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, generate_latest

        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> "Iterable[Metric]":
        """For the registry."""
        with self._lock:
            return [*self._families(), *training_families(self._training())]

    def _families(self) -> "Iterator[Metric]":
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

        name = "fedpt_assistant"
        answers = CounterMetricFamily(f"{name}_answers", "Answers.", labels=["mode"])
        for mode, count in self._answers.items():
            answers.add_metric([mode], count)
        yield answers
        counts = {**self._counts, "answer_seconds": self._seconds}
        for what, text in _TEXTS.items():
            yield CounterMetricFamily(f"{name}_{what}", text, value=counts.get(what, 0))
        yield GaugeMetricFamily(f"{name}_waiting", "Questions that wait.", value=self._waiting())

"""Figures of a federation for Prometheus: made of the state when they are asked for.

All but two counters come from the journal, so they go on after a restart where they were. Served
by a thread of `prometheus_client`'s own, in a registry of our own.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coordinator.settings import MetricsSettings
from coordinator.state import FederationState, Fleet, Phase, RoundRecord
from fedpt.errors import SettingsError
from fedpt.training_figures import TRAINING_FIGURES, Figure

if TYPE_CHECKING:
    from prometheus_client import Metric

_STOP_S = 5.0


@dataclass(frozen=True, slots=True)
class Sample:
    """All that metrics are made of, at one moment."""

    state: FederationState
    fleet: Fleet
    refused: Mapping[str, int]
    """Updates refused since the start, by code."""
    failed_jobs: Mapping[str, int]
    """Jobs failed since the start, by step."""


def metrics_of(sample: Sample) -> "Iterator[Metric]":
    """The figures of one moment."""
    yield from _devices(sample.fleet)
    yield from _rounds(sample.state)
    yield from _updates(sample)
    yield from _scores(sample.state.rounds)
    text = "Evaluations and distillations that failed."
    yield _counter("job_failures", text, "step", sample.failed_jobs)


@contextmanager
def served_metrics(settings: MetricsSettings, look: Callable[[], Sample]) -> Iterator[None]:
    """Serve `/metrics` while the block runs; nothing, if no port is set.

    Args:
        settings: Where.
        look: Gives the present sample; called on the server's thread.

    Raises:
        SettingsError: The port cannot be used.
    """
    if settings.port is None:
        yield
        return
    from prometheus_client import CollectorRegistry, start_http_server

    registry = CollectorRegistry()
    registry.register(_Collector(look))
    try:
        server, thread = start_http_server(settings.port, settings.host, registry)
    except OSError as error:
        raise SettingsError(
            f"cannot serve metrics at {settings.host}:{settings.port}: {error.strerror};"
            " choose another metrics.port"
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(_STOP_S)


class _Collector:
    """What a registry asks for figures."""

    def __init__(self, look: Callable[[], Sample]) -> None:
        self._look = look

    def collect(self) -> "Iterable[Metric]":
        return metrics_of(self._look())

    def describe(self) -> "Iterable[Metric]":
        """Nothing: a registry that is told no names asks for no figures before the first scrape."""
        return ()


def _devices(fleet: Fleet) -> "Iterator[Metric]":
    activities = [status.activity for status in fleet.devices.values()]
    online = sum(activity != "offline" for activity in activities)
    yield _gauge("devices_online", "Devices that are connected.", online)
    yield _gauge("devices_training", "Devices that train.", activities.count("training"))
    waiting = sum(bool(status.waiting) for status in fleet.devices.values())
    yield _gauge("devices_waiting", "Devices whose training waits or is paused.", waiting)
    yield from _progress(fleet)


def _progress(fleet: Fleet) -> "Iterator[Metric]":
    """Of each device that trains; what it has not told has no sample."""
    from prometheus_client.metrics_core import GaugeMetricFamily

    training = {name: one.progress for name, one in fleet.devices.items() if one.progress}
    for field, name, text in (
        Figure("steps_done", "steps_done", "Steps that are done."),
        Figure("steps_total", "steps", "Steps of the whole training."),
        *TRAINING_FIGURES,
        Figure("paused_s", "paused_seconds", "How long training was paused, s."),
    ):
        family = GaugeMetricFamily(f"fedpt_device_training_{name}", text, labels=["device"])
        for device, progress in training.items():
            if (value := getattr(progress, field)) is not None:
                family.add_metric([device], value)
        yield family


def _rounds(state: FederationState) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import GaugeMetricFamily, SummaryMetricFamily

    number = state.current.number if state.rounds else 0
    yield _gauge("round", "Number of the newest round; 0 before the first.", number)
    phases = GaugeMetricFamily("fedpt_phase", "1 for the present phase.", labels=["phase"])
    for phase in Phase:
        phases.add_metric([phase.value], float(phase is state.phase))
    yield phases
    seconds = [one.ended.at_unix_s - one.started_unix_s for one in state.rounds if one.ended]
    yield SummaryMetricFamily(
        "fedpt_round_duration_seconds",
        "From a round's start to its end.",
        count_value=len(seconds),
        sum_value=sum(seconds),
    )
    if seconds:
        yield _gauge("last_round_duration_seconds", "The newest ended round's.", seconds[-1])


def _updates(sample: Sample) -> "Iterator[Metric]":
    from prometheus_client.metrics_core import CounterMetricFamily

    updates = [update for one in sample.state.rounds for update in one.updates.values()]
    for name, text, value in (
        ("updates_accepted", "Updates that count.", len(updates)),
        ("bytes_up", "Bytes received from devices.", sum(one.bytes_up for one in updates)),
        ("bytes_down", "Bytes that devices received.", sum(one.bytes_down for one in updates)),
    ):
        yield CounterMetricFamily(f"fedpt_{name}", text, value=value)
    yield _counter("updates_refused", "Updates refused since the start.", "code", sample.refused)


def _scores(rounds: tuple[RoundRecord, ...]) -> "Iterator[Metric]":
    """The newest evaluation's."""
    from prometheus_client.metrics_core import GaugeMetricFamily

    newest = next((one.evaluation for one in reversed(rounds) if one.evaluation), None)
    if newest is None:
        return
    for field, text in (
        ("nll", "Nats a token of the reference answers."),
        ("exact_match", "Share of answers that are the reference."),
        ("rouge_l", "ROUGE-L F-measure."),
    ):
        family = GaugeMetricFamily(f"fedpt_evaluation_{field}", text, labels=["way"])
        for way, score in newest.scores.items():
            family.add_metric([way], getattr(score, field))
        yield family


def _gauge(name: str, text: str, value: float) -> "Metric":
    from prometheus_client.metrics_core import GaugeMetricFamily

    return GaugeMetricFamily(f"fedpt_{name}", text, value=value)


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> "Metric":
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(f"fedpt_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family

"""Figures of training, and of the board as far as it matters to it, for Prometheus.

What is not known has no sample: a board without a battery tells nothing of power, one that does not
train no speed.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from edge_runtime.training_conditions import Condition
from edge_runtime.training_view import TrainingView
from fedpt.training_figures import TRAINING_FIGURES

if TYPE_CHECKING:
    from prometheus_client import Metric


def training_families(view: TrainingView) -> "Iterator[Metric]":
    """The figures of one moment."""
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    for name, text, value in _gauges(view):
        family = GaugeMetricFamily(f"fedpt_{name}", text)
        if value is not None:
            family.add_metric([], value)
        yield family
    text = "1 for a condition that keeps the board from training."
    failing = GaugeMetricFamily("fedpt_training_condition_fails", text, labels=["condition"])
    for condition in get_args(Condition):
        failing.add_metric([condition], condition in view.failing)
    yield failing
    text = "How long training processes were paused, s."
    yield CounterMetricFamily("fedpt_training_paused_seconds", text, value=view.all_paused_s)


def _gauges(view: TrainingView) -> Iterator[tuple[str, str, float | None]]:
    yield "training_running", "Whether there is a training process.", view.is_running
    yield "training_paused", "Whether it is paused.", view.is_paused
    for field, name, text in TRAINING_FIGURES:
        yield f"training_{name}", text, getattr(view.step, field, None)
    text = "The share of the training that is done."
    yield "training_done", text, None if view.step is None else view.done
    readings = view.readings
    yield "board_on_mains", "Whether the board has mains power.", readings.on_mains
    yield "board_celsius", "The hottest sensor, °C.", readings.celsius
    yield "board_load_of_others", "Programs of others that want a core, a core.", readings.load
    text = "What programs could have if training ended, bytes."
    yield "board_free_memory_bytes", text, readings.free_memory_bytes
    yield "board_free_disk_bytes", "Free where training is kept, bytes.", readings.free_disk_bytes

"""Figures for Prometheus: over real HTTP, read back by Prometheus' own parser."""

import urllib.error
import urllib.request
from pathlib import Path

import pytest
from hypothesis import given
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from coordinator.metrics import Sample, metrics_of, served_metrics
from coordinator.settings import MetricsSettings
from coordinator.state import AnyEvent, FederationState, Fleet
from coordinator.transitions import fold
from fedpt.errors import SettingsError
from fedpt.ids import DeviceId
from fedpt.wire.messages import DeviceStatus, TrainingProgress
from tests.fakes.brokers import free_port
from tests.fakes.histories import histories, run_started, whole_round

FLEET = Fleet(
    {
        DeviceId("a"): DeviceStatus(session=1, activity="idle"),
        DeviceId("b"): DeviceStatus(session=1, activity="training"),
        DeviceId("c"): DeviceStatus(session=1, activity="offline"),
    }
)


PROGRESS = TrainingProgress(
    steps_done=3, steps_total=12, tokens_per_s=95.5, loss=1.5, seconds_left=60, paused_s=2.5
)


def sample(events: list[AnyEvent], **counts: dict[str, int]) -> Sample:
    empty: dict[str, dict[str, int]] = {"refused": {}, "failed_jobs": {}}
    return Sample(fold(events), FLEET, **{**empty, **counts})


def figures(one: Sample) -> dict[str, float]:
    """By name, with its label's value after a colon."""
    return {
        ":".join([item.name, *item.labels.values()]): item.value
        for metric in metrics_of(one)
        for item in metric.samples
    }


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as reply:
        text = reply.read().decode()
    return {
        ":".join([item.name, *item.labels.values()]): item.value
        for family in text_string_to_metric_families(text)
        for item in family.samples
    }


def test_a_round_is_told_in_figures() -> None:
    told = figures(sample([run_started(), *whole_round()]))
    assert told["fedpt_devices_online"] == 2
    assert told["fedpt_devices_training"] == 1
    assert told["fedpt_round"] == 1
    assert told["fedpt_phase:waiting"] == 1
    assert told["fedpt_phase:training"] == 0
    assert told["fedpt_updates_accepted_total"] == 1
    assert told["fedpt_bytes_up_total"] == 1000
    assert told["fedpt_round_duration_seconds_count"] == 1
    assert told["fedpt_round_duration_seconds_sum"] == 60
    assert told["fedpt_last_round_duration_seconds"] == 60
    for way in ("large", "antiexpert", "expert", "steered", "steered_calibrated"):
        assert told[f"fedpt_evaluation_nll:{way}"] == 1.0
        assert told[f"fedpt_evaluation_exact_match:{way}"] == 0.5


def test_training_is_told_of_each_device_as_far_as_it_tells_it() -> None:
    usual = {"session": 1, "activity": "training"}
    fleet = Fleet(
        {
            DeviceId("a"): DeviceStatus(**usual, progress=PROGRESS),
            DeviceId("b"): DeviceStatus(**usual, waiting="waits: 82 °C, at most 80 °C"),
        }
    )
    told = figures(Sample(FederationState(), fleet, {}, {}))
    assert told["fedpt_devices_waiting"] == 1
    assert told["fedpt_device_training_steps_done:a"] == 3
    assert told["fedpt_device_training_steps:a"] == 12
    assert told["fedpt_device_training_tokens_per_second:a"] == 95.5
    assert told["fedpt_device_training_loss:a"] == 1.5
    assert told["fedpt_device_training_seconds_left:a"] == 60
    assert told["fedpt_device_training_paused_seconds:a"] == 2.5
    assert "fedpt_device_training_held_out_nll:a" not in told
    assert not any(name.endswith(":b") for name in told)


def test_refusals_and_failures_are_told_by_kind() -> None:
    told = figures(sample([], refused={"late": 3, "adapter": 1}, failed_jobs={"evaluate": 2}))
    assert told["fedpt_updates_refused_total:late"] == 3
    assert told["fedpt_updates_refused_total:adapter"] == 1
    assert told["fedpt_job_failures_total:evaluate"] == 2


@given(histories())
def test_every_history_can_be_told_and_counters_never_fall(events: list[AnyEvent]) -> None:
    before: dict[str, float] = {}
    for count in range(len(events) + 1):
        told = figures(sample(events[:count]))
        assert sum(told[one] for one in told if one.startswith("fedpt_phase:")) == 1
        for name, value in before.items():
            if name.endswith(("_total", "_sum", "_count")):
                assert told[name] >= value
        before = told


def test_figures_are_served_fresh_while_the_block_runs_and_no_longer() -> None:
    port = free_port()
    events: list[AnyEvent] = [run_started()]
    with served_metrics(MetricsSettings(port=port), lambda: sample(events)):
        assert scrape(port)["fedpt_round"] == 0
        events += whole_round()
        assert scrape(port)["fedpt_round"] == 1
    with pytest.raises(urllib.error.URLError):
        scrape(port)
    with served_metrics(MetricsSettings(port=port), lambda: sample(events)):  # the port is free
        assert scrape(port)["fedpt_updates_accepted_total"] == 1


def test_the_registry_is_our_own() -> None:
    with served_metrics(MetricsSettings(port=free_port()), lambda: sample([])):
        assert not any(metric.name.startswith("fedpt") for metric in REGISTRY.collect())


def test_without_a_port_nothing_is_served() -> None:
    with served_metrics(MetricsSettings(), lambda: Sample(FederationState(), Fleet(), {}, {})):
        pass


def test_a_port_in_use_is_one_line() -> None:
    settings = MetricsSettings(port=free_port())
    with (
        served_metrics(settings, lambda: sample([])),
        pytest.raises(SettingsError, match=r"cannot serve metrics at .* choose another"),
        served_metrics(settings, lambda: sample([])),
    ):
        pass


def test_metrics_are_off_unless_asked_for(tmp_path: Path) -> None:
    assert MetricsSettings().port is None
    assert MetricsSettings().host == "127.0.0.1"

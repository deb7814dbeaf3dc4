"""The report that programs read, and the rows that people read."""

import json
from pathlib import Path

import pytest

from coordinator.state import (
    Aggregated,
    Evaluation,
    RoundEnded,
    RoundRecord,
    Score,
    UpdateAccepted,
)
from deploy.demo.plot import plot_rounds
from deploy.demo.report import WAYS, device_lines, round_report, score_lines
from fedpt.examples import Example
from fedpt.ids import DeviceId
from fedpt.wire.messages import SteeringCoefficients

ON, OFF = '{"intent":"HassTurnOn","name":"lamp"}', '{"intent":"HassTurnOff","name":"lamp"}'
EXAMPLES = [Example("lamp on", ON), Example("lamp off", OFF)]


@pytest.fixture
def record() -> RoundRecord:
    update = UpdateAccepted(
        device="loft", update="a" * 64, example_count=128, training_seconds=70.4, loss=0.2,
        bytes_up=1_657_093, bytes_down=1_656_369,
    )  # fmt: skip
    evaluation = Evaluation(
        scores={way: Score(nll=0.5, exact_match=0.25, rouge_l=0.75) for way in WAYS},
        coefficients=SteeringCoefficients(alpha=1, beta=0.5, gamma=0.3),
        steered_entropy=0.3,
        answers={way: [ON, "the lamp is off"] for way in WAYS},
        seconds=30,
    )
    return RoundRecord(
        number=1,
        selected=(DeviceId("loft"),),
        base="b" * 64,
        started_unix_s=100,
        deadline_unix_s=900,
        updates={DeviceId("loft"): update},
        aggregated=Aggregated(adapter="c" * 64, at_unix_s=185),
        evaluation=evaluation,
        ended=RoundEnded(
            adapter="d" * 64, distillation_seconds=13, distillation_loss=0.1, at_unix_s=230
        ),
    )


def test_a_round_has_scores_for_every_way(record: RoundRecord) -> None:
    report = round_report(record, EXAMPLES)
    for way in ("large", "antiexpert", "expert", "steered", "steered_calibrated"):
        assert report[way] == {
            "nll": 0.5, "exact_match": 0.25, "rouge_l": 0.75, "intent_accuracy": 0.5,
        }  # fmt: skip
    assert report["coefficients"] == {"alpha": 1, "beta": 0.5, "gamma": 0.3}


def test_a_round_has_traffic_and_time_by_device_and_phase(record: RoundRecord) -> None:
    report = round_report(record, EXAMPLES)
    facts = report["devices"]["loft"]
    assert (facts["bytes_up"], facts["bytes_down"]) == (1_657_093, 1_656_369)
    assert facts["seconds"] == 70.4
    assert report["seconds"] == {"training": 85, "evaluation": 30, "distillation": 13}
    json.dumps(report)


def test_the_rows_are_what_people_read(record: RoundRecord) -> None:
    report = round_report(record, EXAMPLES)
    assert score_lines(report)[-1] == ("calibrated (1, 0.5, 0.3)", "0.500", "25%", "0.750", "50%")
    assert device_lines(report) == [("loft", "128", "70", "0.200", "1657", "1656")]


@pytest.mark.slow
def test_the_rounds_become_a_picture(record: RoundRecord, tmp_path: Path) -> None:
    plot_rounds([round_report(record, EXAMPLES)], tmp_path / "rounds.png")
    assert (tmp_path / "rounds.png").read_bytes().startswith(b"\x89PNG")

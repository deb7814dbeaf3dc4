"""What the demonstration found: as JSON for programs, as tables for people."""

from collections.abc import Sequence
from typing import Any

import msgspec

from coordinator.state import RoundRecord
from deploy.demo.smart_home import intent_of
from fedpt.examples import Example

WAYS = ("large", "antiexpert", "expert", "steered", "steered_calibrated")


def round_report(record: RoundRecord, examples: Sequence[Example]) -> dict[str, Any]:
    """One finished round: a score object for each way to decode, traffic and time by device."""
    evaluation, ended, aggregated = record.evaluation, record.ended, record.aggregated
    assert evaluation is not None  # the round is finished
    assert ended is not None
    assert aggregated is not None
    wanted = [intent_of(example.answer) for example in examples]
    ways: dict[str, Any] = {}
    for way in WAYS:
        right = [
            intent_of(answer) == intent
            for answer, intent in zip(evaluation.answers[way], wanted, strict=True)
        ]
        score = msgspec.to_builtins(evaluation.scores[way])
        ways[way] = {**score, "intent_accuracy": sum(right) / len(right)}
    return {
        "round": record.number,
        **ways,
        "coefficients": msgspec.to_builtins(evaluation.coefficients),
        "steered_entropy": evaluation.steered_entropy,
        "devices": {
            device: {
                "bytes_up": update.bytes_up,
                "bytes_down": update.bytes_down,
                "seconds": update.training_seconds,
                "examples": update.example_count,
                "loss": update.loss,
            }
            for device, update in record.updates.items()
        },
        "seconds": {
            "training": aggregated.at_unix_s - record.started_unix_s,
            "evaluation": evaluation.seconds,
            "distillation": ended.distillation_seconds,
        },
        "distillation_loss": ended.distillation_loss,
    }


def score_lines(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The ways to decode, a row each: name, nll, exact match, ROUGE-L, intent accuracy."""
    return [
        (
            _way_name(way, report),
            f"{report[way]['nll']:.3f}",
            f"{report[way]['exact_match']:.0%}",
            f"{report[way]['rouge_l']:.3f}",
            f"{report[way]['intent_accuracy']:.0%}",
        )
        for way in WAYS
    ]


def device_lines(report: dict[str, Any]) -> list[tuple[str, ...]]:
    """The devices, a row each: name, examples, seconds, loss, kilobytes up and down."""
    return [
        (
            device,
            str(facts["examples"]),
            f"{facts['seconds']:.0f}",
            f"{facts['loss']:.3f}",
            f"{facts['bytes_up'] / 1000:.0f}",
            f"{facts['bytes_down'] / 1000:.0f}",
        )
        for device, facts in report["devices"].items()
    ]


def _way_name(way: str, report: dict[str, Any]) -> str:
    if way == "steered":
        return "steered    (1, 1, 1)"
    if way == "steered_calibrated":
        chosen = report["coefficients"]
        return f"calibrated ({chosen['alpha']:g}, {chosen['beta']:g}, {chosen['gamma']:g})"
    return way

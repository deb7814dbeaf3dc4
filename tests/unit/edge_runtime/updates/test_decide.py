"""What a device does about an announcement."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.updates.decide import (
    Ignore,
    Install,
    Offer,
    Situation,
    Wait,
    decide,
    start_delay_s,
)
from edge_runtime.updates.shelf import Shelf
from fedpt.ids import DeviceId
from fedpt.releases import KINDS, Kind
from tests.fakes.releases import WEIGHTS, manifest, signed

EMPTY = Shelf("", "", "", 0, 0, {}, {})
SITUATION = Situation(
    device=DeviceId("board-1"),
    runtime="0.1.0",
    base_weights=WEIGHTS,
    shelves=dict.fromkeys(KINDS, EMPTY),
    now=1000.0,
    now_unix_s=0.0,
    start_within_s=0.0,
    is_idle=True,
)


def offer(kind: Kind = "model", counter: int = 5, **changes: Any) -> Offer:
    names = {name: changes.pop(name) for name in ("fraction", "url", "heard_at") if name in changes}
    one = signed(kind, counter, **changes)
    usual = {"fraction": 1.0, "url": "", "heard_at": 0.0}
    return Offer(one, manifest(kind, counter, **changes), one.id, **{**usual, **names})


def with_shelf(kind: Kind = "model", **changes: Any) -> Situation:
    return replace(SITUATION, shelves={**SITUATION.shelves, kind: replace(EMPTY, **changes)})


def reason(decision: object) -> str:
    assert isinstance(decision, Ignore | Wait)
    return decision.reason


@pytest.mark.parametrize("kind", KINDS)
def test_a_release_that_is_news_is_installed(kind: Kind) -> None:
    assert decide(offer(kind), SITUATION) == Install()


def test_what_is_installed_is_not_installed_again() -> None:
    one = offer()
    assert decide(one, with_shelf(current=one.id, highest_counter=5)) == Ignore("it is installed")


def test_what_was_refused_is_remembered_with_its_reason() -> None:
    one = offer()
    assert "no memory" in reason(decide(one, with_shelf(refused={one.id: "no memory"})))


@pytest.mark.parametrize("highest", [5, 6])
def test_a_replay_and_a_downgrade_are_ignored(highest: int) -> None:
    said = reason(decide(offer(counter=5), with_shelf(highest_counter=highest)))
    assert f"has already seen {highest}" in said


def test_an_expired_release_is_ignored() -> None:
    late = replace(SITUATION, now_unix_s=7200.0)
    assert "expired 1.0 hours ago" in reason(decide(offer(expires_unix_s=3600.0), late))


def test_a_release_for_a_newer_runtime_waits_for_that_one() -> None:
    assert "install the runtime's release first" in reason(
        decide(offer(minimum_runtime="0.1.1"), SITUATION)
    )
    newer = replace(SITUATION, runtime="0.1.1")
    assert decide(offer(minimum_runtime="0.1.1"), newer) == Install()


def test_an_adapter_for_another_model_is_ignored() -> None:
    said = reason(decide(offer("adapter", base_weights="c" * 64), SITUATION))
    assert "an adapter release for base cccccccccccc" in said


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"is_idle": False}, "trains or answers"),
        ({"not_before": 1001.0}, "failed a short while ago"),
        ({"start_within_s": 1e9}, "other devices go first"),
    ],
)
def test_a_release_waits_for_its_time(changes: dict[str, Any], why: str) -> None:
    decision = decide(offer(), replace(SITUATION, **changes))
    assert isinstance(decision, Wait)
    assert why in decision.reason


def test_a_release_waits_until_every_other_has_proved_itself() -> None:
    decision = decide(offer("adapter"), with_shelf("model", candidate="4-a", current="4-a"))
    assert decision == Wait("the new model must prove itself first")


def test_what_a_switch_would_not_change_is_not_installed() -> None:
    elsewhere = replace(SITUATION, unmanaged=frozenset({"model"}))
    assert "not in the releases' folder" in reason(decide(offer(), elsewhere))
    assert decide(offer("adapter"), elsewhere) == Install()


def test_nobody_installs_at_a_fraction_of_nothing_and_everybody_at_one() -> None:
    assert "reached 0%" in reason(decide(offer(fraction=0.0), SITUATION))
    assert decide(offer(fraction=1.0), SITUATION) == Install()


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 10**6))
def test_a_growing_roll_out_only_adds_devices(first: float, second: float, counter: int) -> None:
    low, high = sorted((first, second))
    if decide(offer(counter=counter, fraction=low), SITUATION) == Install():
        assert decide(offer(counter=counter, fraction=high), SITUATION) == Install()


def test_a_roll_out_reaches_about_its_share_and_not_always_the_same_first() -> None:
    def reached(counter: int) -> set[int]:
        one = offer(counter=counter, fraction=0.3)
        return {
            number
            for number in range(300)
            if decide(one, replace(SITUATION, device=DeviceId(f"board-{number}"))) == Install()
        }

    assert 60 <= len(reached(1)) <= 120
    assert reached(1) != reached(2)


def test_devices_do_not_all_begin_at_once_and_each_keeps_its_time() -> None:
    delays = {start_delay_s(DeviceId(f"board-{number}"), "1-a", 600.0) for number in range(50)}
    assert len(delays) == 50
    assert all(0 <= delay <= 600 for delay in delays)
    assert start_delay_s(DeviceId("b"), "1-a", 600.0) == start_delay_s(DeviceId("b"), "1-a", 600.0)

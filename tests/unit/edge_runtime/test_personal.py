"""When a personal adapter is trained, from what, and when it answers."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import planner
from edge_runtime.personal import PersonalRecord, is_due, mixed, personal_adapter
from edge_runtime.state import DeviceState
from fedpt.adapters import Adapter, AdapterManifest, initial_adapter
from fedpt.errors import AdapterError
from fedpt.ids import DeviceId
from tests.fakes.wire_messages import ADAPTER, WEIGHTS, announcement, ref

OURS = DeviceId("board-1")
OTHER = ref("another adapter").sha256


def record(**changes: Any) -> PersonalRecord:  # Any: whatever field
    usual = PersonalRecord(base=WEIGHTS, federation=ADAPTER.sha256, adapter="a" * 64)
    return msgspec.structs.replace(usual, **changes)


def state(phase: Any = "finished", **changes: Any) -> DeviceState:
    """The announced adapter answers."""
    usual = DeviceState(OURS, announcement(phase=phase), adapter_here=True, served=ADAPTER.sha256)
    return replace(usual, **changes)


@pytest.mark.parametrize("phase", ["steering", "finished"])
def test_after_a_round_it_is_due_once_for_each_adapter_of_the_federation(phase: str) -> None:
    assert is_due(None, state(phase), WEIGHTS)
    assert is_due(record(federation=OTHER), state(phase), WEIGHTS)
    assert not is_due(record(), state(phase), WEIGHTS)
    assert not is_due(record(adapter="", fault="worse than before"), state(phase), WEIGHTS)


def test_a_round_that_this_board_trains_in_comes_first() -> None:
    assert not is_due(None, state("training"), WEIGHTS)
    of_others = announcement(selected=["board-2"])
    assert is_due(None, state(announcement=of_others), WEIGHTS)
    assert not is_due(None, state("steering", training=announcement()), WEIGHTS)


def test_it_waits_for_the_newest_adapter() -> None:
    assert not is_due(None, DeviceState(OURS), WEIGHTS)
    assert not is_due(None, state(served=""), WEIGHTS)
    assert not is_due(None, state(served=OTHER), WEIGHTS)
    assert is_due(None, state(served=OTHER, released=OTHER), WEIGHTS)
    assert not is_due(None, state(released=OTHER), WEIGHTS)


def test_a_new_base_voids_it() -> None:
    assert personal_adapter(record(), WEIGHTS) == "a" * 64
    assert personal_adapter(record(), "c" * 64) == ""
    assert personal_adapter(None, WEIGHTS) == ""
    assert is_due(record(), state(), "c" * 64)


@given(
    phase=st.sampled_from(["training", "steering", "finished"]),
    selected=st.sampled_from([[], ["board-1"], ["board-2"]]),
    served=st.sampled_from(["", ADAPTER.sha256, OTHER]),
    is_here=st.booleans(),
    fault=st.sampled_from(["", "no"]),
)
def test_it_is_never_due_when_a_rounds_training_is(  # noqa: PLR0917  # a state
    phase: Any, selected: list[str], served: str, is_here: bool, fault: str
) -> None:
    around = DeviceState(
        OURS,
        announcement(phase=phase, selected=selected),
        adapter_here=is_here,
        served=served,
        fault=fault,
    )
    starts = any(isinstance(one, planner.StartTraining) for one in planner.plan(around, 0.0))
    assert not (starts and is_due(None, around, WEIGHTS))


def adapter(seed: int, rank: int = 2) -> Adapter:
    manifest = AdapterManifest(base_weights=WEIGHTS, rank=rank, alpha=4, target_modules=("q",))
    rng = np.random.default_rng(seed)
    drawn = initial_adapter({"layer.q": (3, 5)}, manifest, rng)
    tensors = {
        name: rng.normal(size=one.shape).astype(np.float32) for name, one in drawn.tensors.items()
    }
    return Adapter(manifest, tensors)


@given(st.floats(0, 1, width=32))
def test_a_mix_lies_between_both_and_is_one_of_them_at_its_ends(mix: float) -> None:
    federation, own = adapter(1), adapter(2)
    for name, tensor in mixed(federation, own, mix).tensors.items():
        low = np.minimum(federation.tensors[name], own.tensors[name])
        high = np.maximum(federation.tensors[name], own.tensors[name])
        assert ((low - 1e-6 <= tensor) & (tensor <= high + 1e-6)).all()
        assert (mixed(federation, own, 0.0).tensors[name] == federation.tensors[name]).all()
        assert (mixed(federation, own, 1.0).tensors[name] == own.tensors[name]).all()


def test_adapters_of_other_forms_are_not_mixed() -> None:
    with pytest.raises(AdapterError):
        mixed(adapter(1), adapter(2, rank=3), 0.5)

"""Updates that wait for their receipt survive a restart, and only their own round finds them."""

from pathlib import Path

import pytest

from edge_runtime.drivers.outbox import Outbox
from tests.fakes.wire_messages import OTHER_RUN, announcement, offer, receipt, ref


def test_an_update_is_found_after_a_restart(tmp_path: Path) -> None:
    Outbox(tmp_path / "outbox").put(offer())
    assert Outbox(tmp_path / "outbox").find(announcement()) == offer()


@pytest.mark.parametrize(
    "other", [{"run": OTHER_RUN}, {"round": 2}, {"adapter": ref("b")}], ids=["run", "round", "base"]
)
def test_another_round_does_not_find_it(tmp_path: Path, other: dict[str, object]) -> None:
    Outbox(tmp_path).put(offer())
    assert Outbox(tmp_path).find(announcement(**other)) is None


def test_an_accepted_update_is_settled_after_a_restart(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(offer())
    assert not outbox.is_settled(announcement())
    outbox.settle(offer(), receipt(offer()))
    assert Outbox(tmp_path).is_settled(announcement())


def test_a_refused_update_is_offered_again_after_a_restart(tmp_path: Path) -> None:
    Outbox(tmp_path).settle(offer(), receipt(offer(), accepted=False))
    assert not Outbox(tmp_path).is_settled(announcement())


@pytest.mark.parametrize("suffix", ["offer", "receipt"])
def test_a_damaged_file_is_as_none(tmp_path: Path, suffix: str) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(offer())
    outbox.settle(offer(), receipt(offer()))
    for path in tmp_path.glob(f"*.{suffix}"):
        path.write_bytes(b"rubbish")
    assert outbox.find(announcement()) == (None if suffix == "offer" else offer())
    assert outbox.is_settled(announcement()) == (suffix == "offer")


def test_updates_of_other_rounds_are_forgotten(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(offer(round=1))
    outbox.put(offer(round=2))
    assert len(list(tmp_path.iterdir())) == 1

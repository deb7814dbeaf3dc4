"""Judgements on a machine's facts, and looks at real files."""

import os
import stat
import time
from pathlib import Path

import pytest

from fedpt.doctor import Level, examine
from fedpt.errors import ModelFileError
from fedpt.health_checks import (
    clock,
    disk_space,
    free_memory,
    judge_clock,
    judge_disk,
    judge_folder,
    judge_free_memory,
    judge_model_size,
    judge_service,
    model_file,
    output_of,
    state_folder,
)

HERE = Path("/somewhere")
MB = 1_000_000


@pytest.mark.parametrize(
    ("free", "level"), [(0, "fault"), (199, "fault"), (200, "warning"), (1000, "ok")]
)
def test_a_full_disk_is_a_fault(free: int, level: Level) -> None:
    assert judge_disk(free * MB, HERE).level == level


def test_the_disk_under_a_folder_that_is_not_there_yet_is_looked_at(tmp_path: Path) -> None:
    (finding,) = disk_space(tmp_path / "not" / "yet")
    assert "MB free" in finding.what


@pytest.mark.parametrize(
    ("skew_s", "synchronised", "level"),
    [
        (-1e6, True, "ok"),
        (299, None, "ok"),
        (301, None, "fault"),
        (301, True, "fault"),
        (0, False, "warning"),
    ],
)
def test_a_clock_behind_what_has_been_is_a_fault(
    skew_s: float, synchronised: bool | None, level: Level
) -> None:
    assert judge_clock(skew_s, is_synchronised=synchronised).level == level


def test_a_file_from_the_future_shows_that_the_clock_is_behind(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    (before,) = clock([path, tmp_path / "missing"])
    assert before.level != "fault"
    os.utime(path, (time.time() + 7200,) * 2)
    (after,) = clock([path])
    assert after.level == "fault"
    assert "2.0 hours behind" in after.what


@pytest.mark.parametrize(("size", "level"), [(100, "ok"), (701, "warning"), (1001, "fault")])
def test_a_model_beyond_the_memory_is_a_fault(size: int, level: Level) -> None:
    assert judge_model_size(HERE, size * MB, 1000 * MB).level == level


def test_a_model_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    with pytest.raises(ModelFileError):
        list(model_file(path))
    path.write_bytes(b"GGUF")
    (finding,) = examine([lambda: model_file(path)])
    assert finding.level == "fault"
    assert str(path) in finding.what


@pytest.mark.parametrize(("available", "level"), [(99, "fault"), (101, "ok")])
def test_no_memory_is_a_fault(available: int, level: Level) -> None:
    assert judge_free_memory(available * MB).level == level


def test_a_look_at_memory_finds_memory() -> None:
    assert all("memory" in one.what for one in free_memory())


def test_a_state_folder_that_is_mine_is_fine(tmp_path: Path) -> None:
    (tmp_path / "session").write_text("1")
    (finding,) = state_folder(tmp_path)
    assert finding.level == "ok"


def test_a_state_folder_open_to_others_is_a_fault_with_its_cure(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    (finding,) = state_folder(tmp_path)
    assert (finding.level, finding.advice) == ("fault", f"sudo chmod go-w {tmp_path}")


def test_files_of_another_user_are_named() -> None:
    finding = judge_folder(HERE, stat.S_IFDIR | 0o755, [HERE / "session", HERE / "outbox"])
    assert finding.level == "fault"
    assert "session, outbox" in finding.what


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_that_root_left_behind_is_found(tmp_path: Path) -> None:
    os.chown(tmp_path, 1234, 1234)
    (tmp_path / "session").write_text("1")
    (finding,) = state_folder(tmp_path)
    assert finding.level == "fault"
    assert "session" in finding.what


def test_a_state_folder_to_come_is_fine(tmp_path: Path) -> None:
    (finding,) = state_folder(tmp_path / "state")
    assert "will be made" in finding.what


@pytest.mark.parametrize(
    ("states", "level"),
    [
        (["active"], "ok"),
        (["active", "active"], "ok"),
        (["active", "failed"], "fault"),
        (["failed"], "fault"),
        (["inactive"], "warning"),
        ([], "warning"),
    ],
)
def test_a_failed_service_is_a_fault(states: list[str], level: Level) -> None:
    assert judge_service("fedpt-device.service", states).level == level


def test_a_program_that_is_not_there_says_nothing() -> None:
    assert output_of(["no-such-program"]) is None
    assert output_of(["sh", "-c", "echo inactive; exit 3"]) == "inactive"

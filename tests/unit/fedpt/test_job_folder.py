"""A job goes in whole; a result says that all of it is done."""

from pathlib import Path

import msgspec
import pytest

from fedpt.errors import StorageError, TrainingError
from fedpt.job_folder import has_result, read_job, read_result, write_job, write_result


class Job(msgspec.Struct):
    data: str
    threads: int = 1


JOB = Job("Küche", 2)


def test_a_job_comes_back(tmp_path: Path) -> None:
    write_job(tmp_path / "job", JOB)
    assert read_job(tmp_path / "job", Job) == JOB
    assert not has_result(tmp_path / "job")


def test_a_result_comes_back(tmp_path: Path) -> None:
    write_result(tmp_path, JOB)
    assert has_result(tmp_path)
    assert read_result(tmp_path, Job) == JOB


def test_a_result_that_is_being_written_is_none(tmp_path: Path) -> None:
    (tmp_path / ".result.json.half").write_text("{")
    (tmp_path / "result.json").mkdir()
    assert not has_result(tmp_path)


def test_a_job_that_did_not_finish_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read .*result.json: .*No such file"):
        read_result(tmp_path, Job)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"data": 5}', b"\xff", b'{"data": "\xff"}', b'{"x": ' + b"[" * 10**5]
)
def test_a_damaged_job_is_a_training_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "job.json").write_bytes(content)
    with pytest.raises(TrainingError, match=r"cannot read .*job.json"):
        read_job(tmp_path, Job)


def test_a_job_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "job").touch()
    with pytest.raises(StorageError):
        write_job(tmp_path / "job", JOB)

"""What daemon and training process say to each other comes out as it went in."""

from pathlib import Path

import msgspec
import pytest

from edge_runtime.training_job import TrainingJob, TrainingResult, TrainingStep
from fedpt.errors import TrainingError
from fedpt.job_folder import has_result, read_job, read_result, write_job, write_result
from tests.fakes.wire_messages import PLAN

JOB = TrainingJob(
    small="s.gguf", adapter="blob", data="d.db", up_to_place=9, plan=PLAN, seed=3, threads=1
)
RESULT = TrainingResult(example_count=5, seconds=2.0, loss=1.0, first_loss=2.0, tokens_per_s=9.0)


def test_a_job_survives_its_folder(tmp_path: Path) -> None:
    write_job(tmp_path / "job", JOB)
    assert read_job(tmp_path / "job", TrainingJob) == JOB
    assert not has_result(tmp_path / "job")


def test_a_result_survives_its_folder(tmp_path: Path) -> None:
    write_result(tmp_path, RESULT)
    assert has_result(tmp_path)
    assert read_result(tmp_path, TrainingResult) == RESULT


def test_an_unfinished_job_has_no_result(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"cannot read .*result\.json"):
        read_result(tmp_path, TrainingResult)


def test_a_step_is_one_line() -> None:
    line = msgspec.json.encode(TrainingStep(done=1, total=2, loss=0.5))
    assert b"\n" not in line
    assert msgspec.json.decode(line, type=TrainingStep).done == 1

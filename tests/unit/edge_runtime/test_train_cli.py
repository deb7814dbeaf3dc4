"""`fedpt device train`: sizes, and what is shown."""

from pathlib import Path

import pytest

from edge_runtime.train_cli import budget_bytes, step_note, summary
from edge_runtime.training_job import TrainingResult, TrainingStep
from fedpt.errors import UsageError

RESULT = TrainingResult(example_count=5, seconds=2.0, loss=1.0, first_loss=2.0, tokens_per_s=9.0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("", None), ("700MB", 700_000_000), ("1.5 GB", 1_500_000_000), ("2gb", 2 * 10**9), ("9", 9)],
)
def test_a_budget_is_read(text: str, size: int | None) -> None:
    assert budget_bytes(text) == size


@pytest.mark.parametrize("text", ["much", "7 TB", "-1MB", "MB", "0", "1e999", "nanMB"])
def test_what_is_no_size_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="a size such as 700MB is wanted"):
        budget_bytes(text)


def test_the_bar_says_speed_loss_and_held_out_nll() -> None:
    step = TrainingStep(done=1, total=2, loss=0.5, tokens_per_s=80.2, held_out_nll=1.25)
    assert step_note(step) == "loss 0.500, held-out 1.250, 80 tokens/s"


def test_the_summary_says_whether_examples_were_held_out() -> None:
    assert "too few to hold any out" in summary(RESULT, Path("out"))

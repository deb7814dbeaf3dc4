"""The learning rate of each step."""

from itertools import pairwise
from typing import Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.training.schedule import learning_rate
from fedpt.wire.messages import TrainingPlan

Schedule = Literal["constant", "linear", "cosine"]
PLAN = TrainingPlan(epochs=1, learning_rate=0.01, batch_examples=2, context_tokens=64)
SCHEDULES: tuple[Schedule, ...] = ("constant", "linear", "cosine")


def rates(schedule: Schedule, *, warmup: float = 0.1, total: int = 100) -> list[float]:
    plan = msgspec.structs.replace(PLAN, schedule=schedule, warmup_share=warmup)
    return [learning_rate(plan, step, total) for step in range(total)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_rises_in_a_line_to_its_peak(schedule: Schedule) -> None:
    assert rates(schedule)[:11] == pytest.approx([*(n / 1000 for n in range(1, 11)), 0.01])


def test_a_constant_rate_stays() -> None:
    assert set(rates("constant")[9:]) == {0.01}


def test_a_linear_rate_falls_in_equal_steps_to_a_tenth() -> None:
    falling = rates("linear")[10:]
    steps = [one - after for one, after in pairwise(falling)]
    assert steps == pytest.approx([0.009 / 90] * 89)
    assert falling[-1] == pytest.approx(0.001 + 0.009 / 90)


def test_a_cosine_rate_is_halfway_in_the_middle_and_slow_at_both_ends() -> None:
    falling = rates("cosine")[10:]
    assert falling[45] == pytest.approx((0.01 + 0.001) / 2)
    assert falling[0] - falling[1] < (falling[44] - falling[45]) / 20
    assert 0.001 <= falling[-1] < 0.00101


def test_without_a_warm_up_the_first_step_is_at_the_peak() -> None:
    assert rates("cosine", warmup=0)[0] == 0.01
    assert rates("linear", warmup=1)[-1] == 0.01


@given(st.sampled_from(SCHEDULES), st.floats(0, 1), st.integers(1, 200))
def test_no_step_is_above_the_peak_or_at_nothing(
    schedule: Schedule, warmup: float, total: int
) -> None:
    assert all(0 < rate <= 0.01 + 1e-12 for rate in rates(schedule, warmup=warmup, total=total))

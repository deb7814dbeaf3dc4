"""When training gives way to questions and to its board, and when it goes on."""

from dataclasses import dataclass, field

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edge_runtime.settings import TrainingConditions
from edge_runtime.training_conditions import Condition
from edge_runtime.training_pauses import (
    Order,
    Surroundings,
    answer_began,
    answer_ended,
    judged,
    may_start,
    order,
    why_not,
)

RULES = TrainingConditions(answer_grace_s=2, pause_after_s=10, end_after_s=300)
HOT: dict[Condition, str] = {"temperature": "82 °C, at most 80 °C"}
SHORT: dict[Condition, str] = {"memory": "90 MB of memory free, at least 200 MB"}
QUIET = Surroundings()


def test_where_nothing_is_wrong_and_nobody_asks_it_runs() -> None:
    assert may_start(QUIET, RULES, 0)
    assert order(QUIET, RULES, 0) == "run"
    assert why_not(QUIET, RULES, 0) == ""


def test_a_question_halts_it_until_a_moment_after_its_answer() -> None:
    asked = answer_began(QUIET)
    assert order(asked, RULES, 100) == "pause"
    assert not may_start(asked, RULES, 100)
    assert why_not(asked, RULES, 100) == "waits: the assistant answers"
    answered = answer_ended(asked, 100)
    assert order(answered, RULES, 101.9) == "pause"
    assert order(answered, RULES, 102) == "run"


def test_of_several_answers_the_last_counts() -> None:
    both = answer_began(answer_began(QUIET))
    one = answer_ended(both, 50)
    assert order(one, RULES, 90) == "pause"
    assert order(answer_ended(one, 90), RULES, 92) == "run"


def test_it_can_go_on_during_answers_if_that_is_wanted() -> None:
    rules = RULES.model_copy(update={"pause_for_answers": False})
    asked = answer_began(QUIET)
    assert order(asked, rules, 0) == "run"
    assert may_start(asked, rules, 0)
    assert why_not(asked, rules, 0) == ""


def test_it_does_not_start_while_a_condition_fails() -> None:
    around = judged(QUIET, HOT, 0)
    assert not may_start(around, RULES, 0)
    assert why_not(around, RULES, 0) == "waits: 82 °C, at most 80 °C"
    assert may_start(judged(around, {}, 1), RULES, 1)


def test_a_condition_that_fails_for_a_moment_does_not_pause_it() -> None:
    around = judged(QUIET, HOT, 0)
    assert order(around, RULES, 9.9) == "run"
    assert order(judged(around, HOT, 8), RULES, 10) == "pause"
    assert order(judged(judged(around, {}, 8), HOT, 9), RULES, 18) == "run"


def test_a_long_pause_ends_the_process_for_its_memory() -> None:
    assert order(judged(QUIET, HOT, 0), RULES, 299.9) == "pause"
    assert order(judged(QUIET, HOT, 0), RULES, 300) == "end"


def test_where_memory_is_short_a_pause_is_of_no_use() -> None:
    assert order(judged(QUIET, SHORT, 0), RULES, 10) == "end"


def test_a_long_answer_ends_nothing() -> None:
    assert order(answer_began(QUIET), RULES, 10_000) == "pause"


def test_all_reasons_are_said() -> None:
    around = judged(answer_began(QUIET), {**HOT, **SHORT}, 0)
    assert why_not(around, RULES, 0) == (
        "waits: 82 °C, at most 80 °C; 90 MB of memory free, at least 200 MB; the assistant answers"
    )


@dataclass
class Board:
    """A clock, questions, a sensor, and a training that obeys."""

    around: Surroundings = QUIET
    now: float = 0.0
    asking: int = 0
    training: Order | None = None
    ran_s: float = 0.0
    quiet_since: float = field(default=-1e9)
    failed_since: float | None = None

    def happen(self, what: str) -> None:
        match what:
            case "ask":
                self.around = answer_began(self.around)
                self.asking += 1
            case "answered" if self.asking:
                self.around = answer_ended(self.around, self.now)
                self.asking -= 1
                self.quiet_since = self.now
            case "hot" | "short":
                self.around = judged(self.around, HOT if what == "hot" else SHORT, self.now)
                self.failed_since = self.now if self.failed_since is None else self.failed_since
            case "good":
                self.around = judged(self.around, {}, self.now)
                self.failed_since = None
            case "soon":
                self.now += 0.5
            case "later":
                self.now += 60
        self.obey()

    def obey(self) -> None:
        if self.training is None or self.training == "end":
            if may_start(self.around, RULES, self.now):
                self.training = "run"
        else:
            self.training = order(self.around, RULES, self.now)


HAPPENINGS = st.sampled_from(["ask", "answered", "hot", "short", "good", "soon", "later"])


@given(st.lists(HAPPENINGS, max_size=60))
@example(["ask", "short", "later", "good"])
def test_whatever_happens_it_never_runs_when_it_must_not_and_always_when_it_may(
    story: list[str],
) -> None:
    board = Board()
    for what in story:
        before = board.training
        board.happen(what)
        if board.training == "run":
            assert board.asking == 0
            assert board.now - board.quiet_since >= RULES.answer_grace_s
            failed = board.failed_since
            assert failed is None or board.now - failed < RULES.pause_after_s
        else:
            assert why_not(board.around, RULES, board.now)
        if board.training == "end" != before:  # later it may only wait for an answer to end
            assert board.failed_since is not None
            assert board.now - board.failed_since >= RULES.pause_after_s
    for what in ["answered"] * board.asking + ["good", "later"]:
        board.happen(what)
    assert board.training == "run"


@pytest.mark.parametrize("now", [0.0, 1e6])
def test_before_the_first_answer_there_is_no_grace(now: float) -> None:
    assert order(QUIET, RULES, now) == "run"

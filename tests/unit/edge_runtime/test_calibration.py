"""Calibration on models that say what they shall."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.calibration import (
    MOST_EXAMPLES,
    MOST_POSITIONS,
    Calibration,
    CalibrationKey,
    Measured,
    SmallRows,
    chosen_examples,
    is_valid,
    measure,
    why_not,
)
from fedpt.chat import EncodedExample
from fedpt.decoding.large_row import LargeRow, full_row
from fedpt.decoding.ports import RowsTold, RowsWanted
from fedpt.errors import TrainingError
from fedpt.proxy_tuning import EXPERT_ALONE, PLAIN, Coefficients, Logits, TokenIds

V = 40
KEY = CalibrationKey(adapter="a" * 64, base="b" * 64, vocabulary="v" * 64, large="large")
EXAMPLES = [EncodedExample(tuple(range(1, 6)), tuple(range(6, 16))) for _ in range(3)]
LONG = EncodedExample(tuple(range(1, 30)) * 10, tuple(range(1, 20)) * 5)


def counting(tokens: Sequence[int], rows: int, certainty: float) -> Logits:
    """A model that expects the number after each number."""
    logits = np.zeros((rows, V), np.float32)
    for row, token in zip(logits, tokens[len(tokens) - rows :], strict=True):
        row[(token + 1) % V] = certainty
    return logits


class Small:
    """An expert that knows a little and an antiexpert that knows nothing; busy now and then."""

    def __init__(self, certainty: float = 1.0) -> None:
        self.certainty = certainty
        self.read: list[int] = []
        self._turn = 0

    def small_rows(self, text: Sequence[int], rows: int) -> SmallRows | None:
        self._turn += 1
        if self._turn % 3 == 0:
            return None
        self.read.append(len(text))
        return SmallRows(
            KEY.adapter, counting(text, rows, self.certainty), np.zeros((rows, V), np.float32)
        )


class Large:
    """Tells whole rows, or leaves the true token out."""

    def __init__(self, certainty: float, *, is_shy: bool = False) -> None:
        self._certainty, self._is_shy = certainty, is_shy
        self.rows_asked: list[int] = []

    def ask(self, question: RowsWanted) -> None:
        self.rows_asked.append(question.rows)
        self._rows = counting(question.tokens, question.rows, self._certainty)

    def is_there(self) -> bool:
        return True

    def fetch(self) -> RowsTold:
        return RowsTold([self._told(row) for row in self._rows], 0.0, 0.0)

    def is_back(self, _tokens: Sequence[int]) -> bool:
        return True

    def _told(self, row: Logits) -> LargeRow:
        if not self._is_shy:
            return full_row(row)
        ids: TokenIds = np.array([0])
        return LargeRow(ids, row[ids], np.zeros(1, np.float32), 9.0, 9.0, V)


def calibrated(
    large: Large, small: Small | None = None, announced: Coefficients = PLAIN
) -> Calibration:
    measured = Measured(announced)
    for _ in measure(EXAMPLES, small or Small(), large, candidates=4, into=measured):
        pass
    return measured.calibration(KEY, 5.0)


def test_a_large_model_that_knows_the_answers_is_taken_on() -> None:
    found = calibrated(Large(4.0))
    assert found.coefficients.beta == 1.0
    assert found.nll < found.nll_expert
    assert found.positions == 30
    assert (found.key, found.made_unix_s) == (KEY, 5.0)


def test_one_that_is_sure_of_wrong_answers_is_left_alone() -> None:
    found = calibrated(Large(-4.0))
    assert found.coefficients == EXPERT_ALONE
    assert found.nll == found.nll_expert < found.nll_plain


@given(st.floats(-6, 6), st.floats(-6, 6), st.floats(0, 3), st.floats(0, 3))
def test_the_choice_is_no_worse_than_all_that_it_is_compared_with(
    large: float, expert: float, beta: float, gamma: float
) -> None:
    found = calibrated(Large(large), Small(expert), Coefficients(1.0, beta, gamma))
    assert found.nll <= min(found.nll_expert, found.nll_plain, found.nll_announced)


def test_long_texts_are_read_in_parts_that_each_grow_and_asked_for_in_parts() -> None:
    small, large = Small(), Large(1.0)
    told = list(measure([LONG], small, large, candidates=4, into=(measured := Measured())))
    steps = [later - earlier for earlier, later in zip(small.read, small.read[1:], strict=False)]
    assert max([small.read[0], *steps]) <= 64
    assert small.read[-1] == len(LONG) - 1
    assert large.rows_asked == [32, 32, 31]
    assert sum(one.token_count for one in measured.fits[PLAIN]) == len(LONG.answer)
    assert None in told  # it was busy, and was asked again


def test_a_server_that_does_not_tell_the_true_tokens_is_no_help() -> None:
    with pytest.raises(TrainingError, match="tells too few tokens"):
        calibrated(Large(1.0, is_shy=True))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80))
def test_enough_examples_are_chosen_and_not_more(lengths: list[int]) -> None:
    examples = [EncodedExample((1,), (2,) * length) for length in lengths]
    chosen = chosen_examples(examples)
    assert 1 <= len(chosen) <= MOST_EXAMPLES
    assert sum(len(one.answer) for one in chosen) <= max(MOST_POSITIONS, lengths[0])


def test_without_held_out_examples_there_is_nothing_to_judge_by() -> None:
    with pytest.raises(TrainingError, match="fewer than 20"):
        chosen_examples([])


def test_private_examples_are_sent_only_by_who_always_shares() -> None:
    allowed = {"is_wanted": True, "has_data": True, "adapter": KEY.adapter}
    assert why_not(permission="always", **allowed) == ""  # type: ignore[arg-type]
    for permission in ("never", "ask"):
        forbidden = why_not(permission=permission, **allowed)  # type: ignore[arg-type]
        assert f'share_questions = "{permission}"' in forbidden
    for name, value in (("is_wanted", False), ("has_data", False), ("adapter", "")):
        assert why_not(permission="always", **{**allowed, name: value}) != ""  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["adapter", "base", "vocabulary", "large"])
def test_it_is_void_when_anything_that_it_was_measured_with_is_another(name: str) -> None:
    found = calibrated(Large(1.0))
    other = {**{one: getattr(KEY, one) for one in KEY.__struct_fields__}, name: "other"}
    assert is_valid(found, KEY)
    assert not is_valid(found, CalibrationKey(**other))


def test_until_the_coordinator_is_heard_of_the_rest_decides() -> None:
    found = calibrated(Large(1.0))
    unknown = CalibrationKey(
        adapter=KEY.adapter, base=KEY.base, vocabulary=KEY.vocabulary, large=""
    )
    assert is_valid(found, unknown)

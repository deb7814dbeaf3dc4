"""Where an answer is steered, and what that took."""

from collections.abc import Iterator

import numpy as np
import pytest

from edge_runtime.steering import Traffic, WorkerFirst, steps_of, where_to_steer
from fedpt.decoding.answer import Token
from fedpt.decoding.draft_and_verify import Tally
from fedpt.decoding.drafting import Drafter, Rules
from fedpt.decoding.sampling import Distribution
from fedpt.errors import LargeModelError, NotServedError
from tests.fakes.scripted_models import END, ScriptedModel, ScriptedText


@pytest.mark.parametrize(
    ("wanted", "facts", "where"),
    [
        ("auto", {}, "tokens"),
        ("logits", {}, "logits"),
        ("auto", {"has_worker": False}, "logits"),
        ("auto", {"is_personal": True}, "logits"),
        ("auto", {"needs_logits": True}, "logits"),
        ("auto", {"is_constrained": True}, "logits"),
    ],
)
def test_what_a_worker_must_not_have_or_cannot_give_keeps_the_work_on_the_board(
    wanted: str, facts: dict[str, bool], where: str
) -> None:
    usual = {
        "has_worker": True,
        "is_personal": False,
        "needs_logits": False,
        "is_constrained": False,
    }
    assert where_to_steer(wanted, **{**usual, **facts}) == where


class Scripted:
    """A steerer that says some tokens, then fails."""

    def __init__(self, tokens: list[int], error: LargeModelError | None = None) -> None:
        self._tokens, self._error = tokens, error
        self.tally = Tally(round_trips=1)

    def next_tokens(self, drafter: Drafter, most: int) -> Iterator[Token]:
        for token in self._tokens[:most]:
            drafter.replace(token)
            ids = np.array([token])
            yield Token(
                token, False, True, Distribution(ids, np.ones(1)), ids, np.zeros(1, np.float32)
            )
        if self._error:
            raise self._error

    def is_back(self, _text: list[int]) -> bool:
        return False


def drafter() -> Drafter:
    return Drafter([1], ScriptedText(ScriptedModel(1)), Rules(lambda token: token == END, 9))


def test_a_worker_that_serves_steers() -> None:
    one = WorkerFirst(Scripted([5, 6]), lambda: Scripted([7]))
    assert [token.id for token in one.next_tokens(drafter(), 9)] == [5, 6]
    assert one.where == "tokens"


@pytest.mark.parametrize(("said", "most", "expected"), [([], 9, [7, 8]), ([5, 6], 3, [5, 6, 7])])
def test_where_the_worker_does_not_serve_the_board_goes_on(
    said: list[int], most: int, expected: list[int]
) -> None:
    one = WorkerFirst(Scripted(said, NotServedError("another adapter")), lambda: Scripted([7, 8]))
    assert [token.id for token in one.next_tokens(drafter(), most)] == expected
    assert one.where == "logits"
    assert [token.id for token in one.next_tokens(drafter(), 1)] == [7]


def test_other_failures_are_the_answers_to_bear() -> None:
    one = WorkerFirst(Scripted([], LargeModelError("silent")), lambda: Scripted([7]))
    with pytest.raises(LargeModelError, match="silent"):
        list(one.next_tokens(drafter(), 9))
    assert one.where == "tokens"


def test_what_it_took_is_told_as_a_difference_and_a_median() -> None:
    traffic = Traffic(1000, 2000, 30)
    before = Traffic(400, 500, 10)
    tally = Tally(round_trips=3, rows=8, drafts_right=7, network_s=[0.3, 0.1, 0.2])
    steps = steps_of("logits", tally, traffic.since(before))
    assert (steps.bytes_up, steps.bytes_down, steps.tokens_sent) == (600, 1500, 20)
    assert steps.network_s == 0.2
    assert (steps.drafts, steps.drafts_right) == (8, 7)

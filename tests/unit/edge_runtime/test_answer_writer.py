"""Text and facts of answers whose tokens the test chooses."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest

from edge_runtime.answer_writer import AnswerWriter
from edge_runtime.question import Notice, Piece, Question
from fedpt.decoding.answer import Fallback, Returned, Step, Token
from fedpt.decoding.sampling import Distribution

PIECES = [b"", b"a", b"b", b"\xc3", b"\xa9", b"END", b"ab"]


class Letters:
    """Spells tokens by the table."""

    def piece(self, token: int) -> bytes:
        return PIECES[token]


def token(number: int, *, is_end: bool = False, is_steered: bool = False) -> Token:
    ids = np.arange(len(PIECES))
    logits = np.log(np.array([1, 2, 3, 4, 5, 6, 7], np.float32) / 28)
    return Token(number, is_end, is_steered, Distribution(ids, np.ones(7) / 7), ids, logits)


def write(question: Question, steps: Iterable[Step]) -> tuple[AnswerWriter, list[Piece | Notice]]:
    ticks = itertools.count()
    writer = AnswerWriter(Letters(), question, clock=lambda: float(next(ticks)))
    return writer, list(writer.written(iter(steps)))


def test_a_character_comes_when_it_is_whole() -> None:
    writer, items = write(Question(), [token(1), token(3), token(4), token(0, is_end=True)])
    assert [item.text for item in items if isinstance(item, Piece)] == ["a", "é"]
    assert (writer.text, writer.tokens, writer.ended) == ("aé", 3, "complete")


def test_a_character_that_was_cut_off_is_told() -> None:
    writer, _ = write(Question(), [token(1), token(3)])
    assert (writer.text, writer.ended) == ("a\ufffd", "length")


def test_it_ends_before_a_stop_string_and_reads_no_further() -> None:
    steps = iter([token(1), token(6), token(5), token(2)])
    writer, _ = write(Question(stop=("bEND",)), steps)
    assert (writer.text, writer.ended) == ("aa", "stop")
    assert len(list(steps)) == 1


def test_the_beginning_of_a_stop_string_that_did_not_come_is_shown_in_the_end() -> None:
    writer, _ = write(Question(stop=("bEND",)), [token(1), token(2)])
    assert writer.text == "ab"


def test_who_chose_a_token_and_why_not_another_is_told() -> None:
    steps = [token(1, is_steered=True), Fallback("silent"), token(2), Returned(), token(1)]
    writer, items = write(Question(), steps)
    assert [item for item in items if isinstance(item, Notice)] == [
        Notice(False, "silent"),
        Notice(True),
    ]
    assert (writer.tokens, writer.steered_tokens, writer.fallback) == (3, 1, "silent")


def test_log_probabilities_are_those_of_the_row() -> None:
    _, items = write(Question(top_logprobs=2), [token(1)])
    (piece,) = items
    assert isinstance(piece, Piece)
    assert piece.facts is not None
    assert piece.facts.chosen.logprob == pytest.approx(math.log(2 / 28))
    assert [one.token for one in piece.facts.top] == ["ab", "END"]
    assert piece.facts.top[0].logprob == pytest.approx(math.log(7 / 28))


def test_no_facts_are_worked_out_that_nobody_wants() -> None:
    _, items = write(Question(), [token(1)])
    assert items == [Piece("a")]

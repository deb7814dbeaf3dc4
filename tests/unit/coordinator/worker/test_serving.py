"""Requests in, replies out, with tiny real models: rows, answers, refusals, and what is left."""

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from coordinator.worker.answers import ANTIEXPERT, EXPERT, LARGE
from coordinator.worker.batching import Told
from fedpt.decoding.sampling import Sampling
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.drivers.llama_runs import Run
from fedpt.errors import ModelFileError
from fedpt.proxy_tuning import PLAIN
from fedpt.wire.codec import encode
from fedpt.wire.logit_format import rows_from_bytes
from fedpt.wire.messages import (
    AnswerReply,
    AnswerRequest,
    LogitReply,
    LogitRequest,
    Opening,
    SteeringCoefficients,
)
from fedpt.wire.token_format import id_sets_to_bytes, tokens_from_bytes, tokens_to_bytes
from tests.fakes.served_here import Board, ServedHere
from tests.fakes.tiny_federation import LOGIT_TOLERANCE, Reference, TinyFederation

pytestmark = pytest.mark.llama

PROMPT = [1, 70, 80, 90, 100, 110, 33]
V = 384
SAMPLED = Sampling(temperature=1.0, top_p=0.95, seed=7)


@pytest.fixture(scope="module")
def served(tiny: TinyFederation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedHere]:
    """One worker for all: what a test leaves behind must not trouble the next."""
    limits = {"rows_per_s": 1e6, "burst_rows": 1e6}
    one = ServedHere(tiny, tmp_path_factory.mktemp("worker"), worker=limits)
    yield one
    one.close()


@pytest.fixture
def board(served: ServedHere) -> Iterator[Board]:
    with served.running(), Board(served) as one:
        yield one
    del served.on_reply["board-1"]


def rows_wanted(text: list[int], **more: object) -> LogitRequest:
    usual = LogitRequest(
        request=3,
        session=b"12345678",
        position=0,
        tokens=tokens_to_bytes(text),
        rows=1,
        largest=0,
    )
    return msgspec.structs.replace(usual, **more)


def answer_wanted(served: ServedHere, text: list[int], **more: object) -> AnswerRequest:
    usual = AnswerRequest(
        request=4,
        session=b"abcdefgh",
        position=0,
        tokens=tokens_to_bytes(text),
        most=8,
        adapter=served.adapter,
        coefficients=SteeringCoefficients(),
        sampling=Sampling(),
    )
    return msgspec.structs.replace(usual, **more)


def whole_answer(served: ServedHere, request: AnswerRequest) -> list[int]:
    reply, tokens = served.ask(request), []
    while True:
        assert isinstance(reply, AnswerReply)
        assert (reply.code, reply.first) == ("", len(tokens))
        tokens += tokens_from_bytes(reply.tokens)
        if reply.is_last:
            return tokens
        reply = served.next_reply()


def test_rows_are_the_models_own(served: ServedHere, tiny: TinyFederation) -> None:
    reply = served.ask(rows_wanted(PROMPT, rows=3))
    assert isinstance(reply, LogitReply)
    assert (reply.request, reply.session, reply.worker) == (3, b"12345678", "worker-1")
    assert 0 < reply.busy_us < 60e6
    rows = rows_from_bytes(reply.rows, candidates=[np.zeros(0, int)] * 3, vocabulary_size=V)
    with LlamaModel(tiny.large) as model, LlamaContext(model, tokens=64, threads=1) as context:
        (expected,) = context.evaluate([Run(0, 0, PROMPT, 3)])
    for row, true in zip(rows, expected, strict=True):
        np.testing.assert_allclose(row.logits, true, atol=LOGIT_TOLERANCE)


def test_few_logits_hold_the_largest_and_the_candidates(served: ServedHere) -> None:
    candidates = [np.array([3, 200, 383])] * 2
    sets = id_sets_to_bytes(candidates)
    reply = served.ask(rows_wanted(PROMPT, rows=2, largest=4, candidates=sets))
    assert isinstance(reply, LogitReply)
    for row in rows_from_bytes(reply.rows, candidates=candidates, vocabulary_size=V):
        assert {3, 200, 383} <= set(row.ids)
        assert 4 <= len(row.ids) <= 7


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"position": 4}, "session_lost"),
        ({"session": b"unknown!", "position": 1}, "session_lost"),
        ({"tokens": tokens_to_bytes([V])}, "usage"),
        ({"tokens": tokens_to_bytes([2**24 - 1])}, "usage"),
        ({"tokens": b""}, "usage"),
        ({"rows": 64}, "usage"),
        ({"tokens": b"\x01"}, "malformed"),
        ({"candidates": b"\x85"}, "malformed"),
        ({"candidates": b"\x05\x00"}, "malformed"),
        ({"candidates": id_sets_to_bytes([np.array([V])])}, "malformed"),
        ({"largest": 1025}, "too_much"),
        ({"largest": 2**60}, "too_much"),
        ({"tokens": tokens_to_bytes([5] * 513)}, "too_long"),
        ({"opening": Opening(vocabulary="another")}, "not_served"),
        ({"opening": Opening(large="another")}, "not_served"),
    ],
)
def test_what_cannot_be_served_is_refused_with_a_code_and_nothing_is_lost(
    served: ServedHere, changes: dict[str, object], code: str
) -> None:
    fresh = {"session": b"a fresh1", **changes}
    reply = served.ask(rows_wanted([5], **fresh))
    assert (reply.code, reply.request) == (code, 3)
    assert reply.reason
    assert served.ask(rows_wanted(PROMPT)).code == ""
    assert not served.serving._admission._waiting


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"position": 4}, "session_lost"),
        ({"tokens": tokens_to_bytes([V])}, "usage"),
        ({"tokens": b""}, "usage"),
        ({"tokens": b"\x01"}, "malformed"),
        ({"adapter": "f" * 64}, "not_served"),
        ({"most": 512}, "too_long"),
        ({"opening": Opening(vocabulary="another")}, "not_served"),
    ],
)
def test_an_answer_that_cannot_be_steered_is_refused_with_a_code(
    served: ServedHere, changes: dict[str, object], code: str
) -> None:
    reply = served.ask(answer_wanted(served, PROMPT, session=b"a fresh2", **changes))
    assert isinstance(reply, AnswerReply)
    assert (reply.code, reply.is_last, reply.request) == (code, True, 4)
    assert len(whole_answer(served, answer_wanted(served, PROMPT))) == 8
    settle(served)


def settle(served: ServedHere) -> None:
    """Answers' ends are heard after their last reply."""
    while served.serving._answers._threads or served.serving._batcher._jobs:
        served.serving.turn(0.01)
    assert not served.serving._admission._waiting
    assert not any(one.users for one in served.serving._sessions._sessions.values())


@pytest.mark.parametrize("sampling", [Sampling(), SAMPLED], ids=["greedy", "sampled"])
def test_both_ways_give_the_same_answer(board: Board, sampling: Sampling) -> None:
    by_tokens = board.answer(PROMPT, "tokens", sampling=sampling)
    assert board.answer(PROMPT, "logits", sampling=sampling) == by_tokens


def test_greedy_answers_are_the_references(board: Board, tiny: TinyFederation) -> None:
    answer = board.answer(PROMPT, "tokens")
    assert Reference(tiny).is_greedy(tuple(PROMPT), answer, PLAIN)


def test_a_conversation_goes_on_over_several_answers(board: Board) -> None:
    text = list(PROMPT)
    for _ in range(3):
        by_tokens = board.answer(text, "tokens", most=12)
        assert board.answer(text, "logits", most=12) == by_tokens
        text += [*by_tokens, 60, 61]
    went_back = [*text[:12], 77]
    assert board.answer(went_back, "tokens") == board.answer(went_back, "logits")


def test_two_boards_at_once_get_what_each_gets_alone(served: ServedHere) -> None:
    prompts = {"a": PROMPT, "b": [1, 200, 150, 30]}
    with served.running(), Board(served, "a") as a, Board(served, "b") as b:
        alone = {one.name: one.answer(prompts[one.name], "tokens") for one in (a, b)}
        for where in ("tokens", "logits"):
            results: dict[str, list[int]] = {}

            def ask(one: Board, where: str = where, results: dict = results) -> None:
                results[one.name] = one.answer(prompts[one.name], where)

            threads = [threading.Thread(target=ask, args=(one,)) for one in (a, b)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert results == alone


def test_an_answer_that_is_hung_up_on_makes_way_for_the_next(board: Board) -> None:
    steps = board.steps(PROMPT, "tokens", most=128)
    next(steps)
    steps.close()  # type: ignore[attr-defined]  # a generator
    other = [*PROMPT, 60]
    assert board.answer(other, "tokens", most=8) == board.answer(other, "logits", most=8)


def test_an_answer_that_is_not_wanted_any_more_stops_without_a_word(served: ServedHere) -> None:
    assert served.ask(answer_wanted(served, PROMPT, most=400)).code == ""
    served.receive("board-1", encode(answer_wanted(served, [], most=0)))
    settle(served)
    while not served.replies.empty():
        reply = served.replies.get_nowait()
        assert isinstance(reply, AnswerReply)
        assert (reply.code, reply.is_last) == ("", False)
    assert len(whole_answer(served, answer_wanted(served, PROMPT))) == 8
    settle(served)


def test_a_question_of_each_kind_in_one_session_do_not_meet(served: ServedHere) -> None:
    answer = whole_answer(served, answer_wanted(served, PROMPT, session=b"samename"))
    text = [*PROMPT, *answer]
    lost = served.ask(rows_wanted([5], session=b"samename", position=len(text)))
    assert lost.code == "session_lost"
    settle(served)


def test_a_new_adapter_ends_answers_of_the_old_one_with_a_code(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    served = ServedHere(tiny, tmp_path, worker={"rows_per_s": 1e6, "burst_rows": 1e6})
    try:
        first = served.ask(answer_wanted(served, PROMPT, most=400))
        assert first.code == ""
        old = served.adapter
        served.announce(another_adapter(tiny))
        reply = served.next_reply()
        while not reply.code and isinstance(reply, AnswerReply) and not reply.is_last:
            reply = served.next_reply()
        assert reply.code == "not_served"
        settle(served)
        assert served.ask(answer_wanted(served, PROMPT, adapter=old)).code == "not_served"
        assert len(whole_answer(served, answer_wanted(served, PROMPT))) == 8
    finally:
        settle(served)
        served.close()


def another_adapter(tiny: TinyFederation) -> bytes:
    from dataclasses import replace

    from fedpt.adapters import adapter_to_bytes

    tensors = {name: 2 * value for name, value in tiny.adapter.tensors.items()}
    return adapter_to_bytes(replace(tiny.adapter, tensors=tensors))


def test_stopping_sends_devices_to_another_worker(tiny: TinyFederation, tmp_path: Path) -> None:
    served = ServedHere(tiny, tmp_path, worker={"rows_per_s": 1e6, "burst_rows": 1e6})
    assert served.ask(answer_wanted(served, PROMPT, most=400)).code == ""
    served.receive("board-2", encode(rows_wanted(PROMPT)))
    before = threading.active_count()
    served.serving._inbox.take()()  # type: ignore[misc]  # begun with, and not done
    served.close()
    replies = [served.replies.get_nowait() for _ in range(served.replies.qsize())]
    assert {type(one).__name__ for one in replies if one.code == "session_lost"} == {
        "AnswerReply",
        "LogitReply",
    }
    assert threading.active_count() < before


class Broken:
    """A model that fails at everything."""

    def evaluate(self, _runs: Sequence[Run]) -> list[Told]:
        raise ModelFileError("broken")

    def forget(self, sequence: int, position: int = 0) -> None:
        pass


@pytest.mark.parametrize("model", [EXPERT, ANTIEXPERT, LARGE])
def test_a_model_that_fails_in_mid_answer_is_told_and_nothing_is_left_of_it(
    served: ServedHere, model: str
) -> None:
    expected = whole_answer(served, answer_wanted(served, PROMPT))
    settle(served)
    batcher = served.serving._batcher
    whole = batcher._contexts[model]
    batcher.replace(model, Broken())
    text = [*PROMPT, *expected, 50]
    assert served.ask(answer_wanted(served, text)).code in ("model_file", "large_model")
    settle(served)
    batcher.replace(model, whole)
    lost = served.ask(answer_wanted(served, [51], position=len(text)))
    assert lost.code == "session_lost"
    assert whole_answer(served, answer_wanted(served, PROMPT)) == expected
    settle(served)


def test_a_device_that_floods_holds_nobody_up(served: ServedHere) -> None:
    for number in range(5000):
        served.receive("flood", encode(rows_wanted([5] * 60, request=number)))
    served.receive("board-2", encode(rows_wanted(PROMPT, request=9999)))
    served.serving.turn(0.0)
    served.serving.turn(0.0)
    replies = [served.replies.get_nowait() for _ in range(served.replies.qsize())]
    assert 9999 in {one.request for one in replies if not one.code}
    while served.serving._inbox:
        served.serving.turn(0.0)
    settle(served)
    served.replies.queue.clear()


def test_many_conversations_leave_nothing_behind(served: ServedHere) -> None:
    for number in range(100):
        name = f"s{number:07}".encode()
        assert served.ask(rows_wanted([5, 6], session=name), f"board-{number}").code == ""
    assert len(served.serving._sessions) <= 8
    served.serving._admission.forget_idle(float("inf"))
    assert not served.serving._admission._buckets
    assert not served.serving._batcher._served
    assert not served.serving._inbox

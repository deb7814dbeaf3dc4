"""Whole answers of a board whose worker asks a real server: as good as with whole rows, or doubted.

Messages, sessions, batches and both ends' drivers are real; only MQTT is missing.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fedpt.decoding.answer import Fallback, Token
from fedpt.decoding.sampling import GREEDY
from fedpt.proxy_tuning import PLAIN
from fedpt.wire.codec import encode
from fedpt.wire.messages import (
    AnswerReply,
    AnswerRequest,
    LogitReply,
    LogitRequest,
    SteeringCoefficients,
)
from fedpt.wire.token_format import tokens_to_bytes
from tests.fakes.model_servers import llama_cpp_python_server, llama_server
from tests.fakes.served_here import Board, ServedHere
from tests.fakes.tiny_federation import Reference, TinyFederation

pytestmark = pytest.mark.llama

PROMPT = [1, 70, 80, 90, 100, 110, 33]
LIMITS = {"rows_per_s": 1e6, "burst_rows": 1e6}
Serve = Callable[..., ServedHere]


@pytest.fixture
def serve(tiny: TinyFederation, tmp_path: Path) -> Iterator[Serve]:
    """A worker with this back end; the board's only way is rows of logits, or none."""
    with ExitStack() as stack:

        def make(**large: Any) -> ServedHere:
            one = ServedHere(tiny, tmp_path, worker={**LIMITS, "large": large})
            stack.callback(one.close)
            return one

        yield make


def is_greedy(tiny: TinyFederation, answer: list[int]) -> bool:
    return Reference(tiny).is_greedy(tuple(PROMPT), answer, PLAIN)


def test_of_llama_server_enough_is_told_to_be_certain(serve: Serve, tiny: TinyFederation) -> None:
    pytest.importorskip("xllamacpp", reason="no wheel with llama-server for this machine")
    with llama_server(tiny.large) as url:
        served = serve(kind="llama-server", url=url, top=384)
        with served.running(), Board(served) as board:
            answer = board.answer(PROMPT, "logits")
    assert len(answer) > 3
    assert is_greedy(tiny, answer)


def test_of_transformers_answers_are_as_of_llama_cpp(serve: Serve, tiny: TinyFederation) -> None:
    served = serve(kind="transformers", path=tiny.large_folder)
    with served.running(), Board(served) as board:
        assert is_greedy(tiny, board.answer(PROMPT, "logits"))


def test_of_transformers_the_worker_steers_whole_answers_too(
    serve: Serve, tiny: TinyFederation
) -> None:
    served = serve(kind="transformers", path=tiny.large_folder)
    with served.running(), Board(served) as board:
        assert is_greedy(tiny, board.answer(PROMPT, "tokens"))


def test_of_an_openai_server_a_board_takes_what_it_tells(
    serve: Serve, tiny: TinyFederation
) -> None:
    """A text of tokens that the server may read as others: no word on which tokens come out."""
    with llama_cpp_python_server(tiny.large) as url:
        served = serve(kind="openai", url=url, model="large")
        with served.running(), Board(served) as board:
            steps = list(board.steps(PROMPT, "logits", most=4))
    assert any(isinstance(step, Token) for step in steps)
    fallbacks = [step.reason for step in steps if isinstance(step, Fallback)]
    assert all("ends within a character" in reason for reason in fallbacks)


def test_of_a_black_box_no_answers_are_steered_here(serve: Serve, tiny: TinyFederation) -> None:
    with llama_cpp_python_server(tiny.large) as url:
        served = serve(kind="openai", url=url, model="large")
        request = AnswerRequest(
            request=4,
            session=b"abcdefgh",
            position=0,
            tokens=tokens_to_bytes(PROMPT),
            most=8,
            adapter=served.adapter,
            coefficients=SteeringCoefficients(),
            sampling=GREEDY,
        )
        reply = served.ask(request)
    assert isinstance(reply, AnswerReply)
    assert reply.code == "not_served"


def test_a_server_that_is_gone_is_a_refusal_and_the_worker_goes_on(
    serve: Serve, tiny: TinyFederation
) -> None:
    request = LogitRequest(
        request=3,
        session=b"12345678",
        position=0,
        tokens=tokens_to_bytes([300, 301]),
        rows=1,
        largest=16,
    )
    with llama_cpp_python_server(tiny.large) as url:
        served = serve(kind="openai", url=url, model="large", timeout_s=0.3)
    for _ in range(2):
        reply = served.ask(request)
        assert isinstance(reply, LogitReply)
        assert reply.code == "large_model"
        assert "cannot be reached" in reply.reason
    assert encode(reply)

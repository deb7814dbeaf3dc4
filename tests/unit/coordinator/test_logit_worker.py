"""Conversations of several devices in one context of a tiny large model."""

from collections.abc import Iterator

import numpy as np
import pytest

from coordinator.logit_worker import Sessions
from fedpt.drivers.llama import LlamaContext, LlamaModel, Run
from fedpt.errors import SessionLostError, TooLongError, UsageError
from fedpt.ids import DeviceId
from fedpt.proxy_tuning import Logits
from fedpt.wire.messages import LogitRequest
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama

ONE, TWO = DeviceId("board-1"), DeviceId("board-2")
TEXT = [5, 6, 7, 8, 9, 10]
ROOM = 64
TOLERANCE = 0.01
"""Another split into batches sums half-precision cache entries in another order."""


@pytest.fixture(scope="module")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.large) as one:
        yield one


@pytest.fixture
def sessions(model: LlamaModel) -> Iterator[Sessions]:
    with LlamaContext(model, tokens=ROOM, sequences=2, threads=1) as context:
        yield Sessions(context)


@pytest.fixture
def expected(model: LlamaModel) -> Iterator["Alone"]:
    with LlamaContext(model, tokens=ROOM, threads=1) as context:
        yield Alone(context)


class Alone:
    """Each text from its beginning, in an empty context."""

    def __init__(self, context: LlamaContext) -> None:
        self._context = context

    def after(self, tokens: list[int]) -> Logits:
        self._context.forget(0)
        return self._context.evaluate([Run(0, 0, tokens)])[0][0]


def ask(
    sessions: Sessions,
    tokens: list[int],
    position: int = 0,
    *,
    who: DeviceId = ONE,
    name: str = "s",
) -> Logits:
    request = LogitRequest(request=1, session=name, position=position, tokens=tokens)
    return sessions.logits(who, request)


def assert_close(ours: Logits, theirs: Logits) -> None:
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_a_conversation_goes_on_with_new_tokens_only(sessions: Sessions, expected: Alone) -> None:
    assert_close(ask(sessions, TEXT[:3]), expected.after(TEXT[:3]))
    assert_close(ask(sessions, TEXT[3:], 3), expected.after(TEXT))


def test_a_repeated_request_changes_nothing(sessions: Sessions) -> None:
    ask(sessions, TEXT[:3])
    first = ask(sessions, TEXT[3:], 3)
    assert_close(ask(sessions, TEXT[3:], 3), first)
    assert_close(ask(sessions, TEXT[3:], 3), first)


def test_a_conversation_can_go_back(sessions: Sessions, expected: Alone) -> None:
    ask(sessions, TEXT)
    assert_close(ask(sessions, [20, 21], 2), expected.after([*TEXT[:2], 20, 21]))
    assert_close(ask(sessions, TEXT), expected.after(TEXT))


def test_the_longest_unused_session_gives_way(sessions: Sessions) -> None:
    ask(sessions, TEXT, name="a")
    ask(sessions, TEXT, name="b")
    ask(sessions, [11], 6, name="a")
    ask(sessions, TEXT, name="c")
    ask(sessions, [12], 7, name="a")
    with pytest.raises(SessionLostError, match="0 tokens are here, not 6"):
        ask(sessions, [11], 6, name="b")


def test_a_full_cache_closes_the_longest_unused(sessions: Sessions, expected: Alone) -> None:
    long = list(range(3, 43))
    ask(sessions, long, name="a")
    assert_close(ask(sessions, long, name="b"), expected.after(long))
    with pytest.raises(SessionLostError):
        ask(sessions, [5], 40, name="a")
    assert_close(ask(sessions, [5], 40, name="b"), expected.after([*long, 5]))


def test_the_same_session_name_of_two_devices_is_two_sessions(
    sessions: Sessions, expected: Alone
) -> None:
    ask(sessions, TEXT, who=ONE)
    with pytest.raises(SessionLostError):
        ask(sessions, [11], 6, who=TWO)
    ask(sessions, [30, 31], who=TWO)
    assert_close(ask(sessions, [11], 6, who=ONE), expected.after([*TEXT, 11]))


@pytest.mark.parametrize("position", [1, 2**31, 2**64 - 1])
def test_a_position_beyond_what_is_here_is_a_lost_session(
    sessions: Sessions, position: int
) -> None:
    with pytest.raises(SessionLostError):
        ask(sessions, [5], position)


@pytest.mark.parametrize("size", [ROOM + 1, 65_536])
def test_a_conversation_that_is_too_long_is_refused_and_kept(
    sessions: Sessions, expected: Alone, size: int
) -> None:
    ask(sessions, TEXT)
    with pytest.raises(TooLongError, match=f"{size} tokens; the context holds {ROOM}"):
        ask(sessions, [5] * size)
    assert_close(ask(sessions, [11], 6), expected.after([*TEXT, 11]))


def test_as_much_as_the_context_holds_is_answered(sessions: Sessions, expected: Alone) -> None:
    assert_close(ask(sessions, [5] * ROOM), expected.after([5] * ROOM))


@pytest.mark.parametrize("token", [384, 2**31, 2**64 - 1])
def test_a_token_out_of_range_is_refused_and_others_are_not_harmed(
    sessions: Sessions, expected: Alone, token: int
) -> None:
    ask(sessions, TEXT, who=TWO)
    with pytest.raises(UsageError, match=f"token {token} is not in the vocabulary of 384 tokens"):
        ask(sessions, [5, token], who=ONE)
    assert_close(ask(sessions, [11], 6, who=TWO), expected.after([*TEXT, 11]))
    assert_close(ask(sessions, TEXT, who=ONE), expected.after(TEXT))


def test_a_long_request_shows_signs_of_life_on_its_way(model: LlamaModel) -> None:
    signs: list[int] = []
    with LlamaContext(model, tokens=1536, sequences=1, threads=1) as context:
        long = Sessions(context, on_batch=lambda: signs.append(1))
        ask(long, [5 + i % 300 for i in range(700)])
    assert len(signs) == 2

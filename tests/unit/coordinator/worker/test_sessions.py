"""Who holds which slot: gone on with, cut, put out in turn, refused."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.worker.sessions import Capacity, Key, Session, Sessions
from fedpt.errors import BusyError, FedptError, SessionLostError, TooLongError, UsageError
from fedpt.ids import DeviceId

ONE, TWO = DeviceId("board-1"), DeviceId("board-2")
TEXT = [5, 6, 7, 8, 9, 10]
ROOM = 64


def key(name: str = "s", device: DeviceId = ONE) -> Key:
    return device, "rows", name.encode()


class Cuts:
    """What a worker's caches are told."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    def __call__(self, slot: int, length: int) -> None:
        self.heard.append((slot, length))


def make(cuts: Cuts | None = None, *, slots: int = 2, per_device: int = 2) -> Sessions:
    capacity = Capacity(slots, per_device, context_tokens=ROOM, vocabulary_size=384)
    return Sessions(capacity, on_cut=cuts or Cuts())


def test_a_conversation_goes_on_with_new_tokens_only() -> None:
    sessions = make()
    first, kept = sessions.continued(key(), 0, TEXT[:3])
    assert kept == 0
    again, kept = sessions.continued(key(), 3, TEXT[3:])
    assert again is first
    assert (again.tokens, kept) == (TEXT, 3)


def test_a_repeated_request_needs_only_the_rows_that_are_wanted() -> None:
    sessions = make(cuts := Cuts())
    sessions.continued(key(), 0, TEXT)
    session, kept = sessions.continued(key(), 0, TEXT, wanted=2)
    assert (session.tokens, kept) == (TEXT, len(TEXT) - 2)
    assert cuts.heard == []


def test_a_conversation_that_goes_back_is_cut_where_it_parts() -> None:
    sessions = make(cuts := Cuts())
    sessions.continued(key(), 0, TEXT)
    session, kept = sessions.continued(key(), 2, [7, 20, 21])
    assert (session.tokens, kept) == ([5, 6, 7, 20, 21], 3)
    assert cuts.heard == [(session.slot, 3)]


def test_what_an_earlier_request_still_needs_is_not_cut() -> None:
    sessions = make(cuts := Cuts())
    sessions.continued(key(), 0, TEXT)[0].users += 1
    sessions.continued(key(), 2, [20])
    assert cuts.heard == []


def test_the_longest_unused_conversation_gives_way() -> None:
    sessions = make(cuts := Cuts(), per_device=9)
    sessions.continued(key("a"), 0, TEXT)
    b, _ = sessions.continued(key("b"), 0, TEXT)
    sessions.continued(key("a"), 6, [11])
    c, _ = sessions.continued(key("c"), 0, TEXT)
    assert c.slot == b.slot
    assert cuts.heard == [(b.slot, 0)]
    sessions.continued(key("a"), 7, [12])
    with pytest.raises(SessionLostError, match="0 tokens are here, not 6"):
        sessions.continued(key("b"), 6, [11])


def test_a_conversation_that_is_being_answered_is_never_put_out() -> None:
    sessions = make()
    for name in "ab":
        sessions.continued(key(name), 0, TEXT)[0].users += 1
    with pytest.raises(BusyError, match="all 2 conversations are being answered"):
        sessions.continued(key("c"), 0, TEXT)
    assert sessions.find(key("a")) is not None


def test_a_device_that_opens_many_puts_out_its_own() -> None:
    sessions = make(slots=4, per_device=2)
    sessions.continued(key("home", TWO), 0, TEXT)
    for name in "abcdef":
        sessions.continued(key(name), 0, TEXT)
    assert len(sessions) == 3
    sessions.continued(key("home", TWO), 6, [11])


def test_a_full_cache_closes_the_longest_unused() -> None:
    sessions = make()
    long = list(range(3, 43))
    sessions.continued(key("a"), 0, long)
    sessions.continued(key("b"), 0, long)
    assert sessions.find(key("a")) is None


def test_a_cache_full_of_what_is_being_answered_puts_nobody_out_in_vain() -> None:
    sessions = make(slots=3, per_device=3)
    sessions.continued(key("idle"), 0, [5])
    sessions.continued(key("busy"), 0, [5], more=40)[0].users += 1
    with pytest.raises(BusyError, match="the cache is full"):
        sessions.continued(key("new"), 0, [5] * 30)
    assert sessions.find(key("idle")) is not None


def test_room_for_an_answer_is_kept_only_while_it_is_made() -> None:
    sessions = make(per_device=9)
    session, _ = sessions.continued(key("answer"), 0, TEXT, more=50)
    session.users += 1
    with pytest.raises(BusyError):
        sessions.continued(key("other"), 0, TEXT * 2)
    session.users -= 1
    sessions.continued(key("other"), 0, TEXT * 2)
    assert sessions.find(key("answer")) is not None


@pytest.mark.parametrize(
    "other", [(TWO, "rows", b"s"), (ONE, "answers", b"s"), (ONE, "rows", b"t")]
)
def test_a_name_is_one_conversation_of_one_device_and_kind(other: Key) -> None:
    sessions = make()
    sessions.continued(key(), 0, TEXT)
    with pytest.raises(SessionLostError):
        sessions.continued(other, 6, [11])


@pytest.mark.parametrize("position", [1, 2**31, 2**64 - 1])
def test_a_position_beyond_what_is_here_is_a_lost_session(position: int) -> None:
    with pytest.raises(SessionLostError):
        make().continued(key(), position, [5])


@pytest.mark.parametrize("more", [0, 10])
def test_a_conversation_that_is_too_long_is_refused_and_kept(more: int) -> None:
    sessions = make()
    sessions.continued(key(), 0, TEXT)
    with pytest.raises(TooLongError, match=f"{ROOM + 1} tokens; the context holds {ROOM}"):
        sessions.continued(key(), 0, [5] * (ROOM + 1 - more), more=more)
    assert sessions.continued(key(), 6, [11])[0].tokens == [*TEXT, 11]


def test_as_much_as_the_context_holds_is_taken() -> None:
    assert len(make().continued(key(), 0, [5] * ROOM)[0].tokens) == ROOM


@pytest.mark.parametrize("token", [384, 2**24 - 1])
def test_a_token_out_of_range_is_refused_and_nothing_is_changed(token: int) -> None:
    sessions = make()
    sessions.continued(key(), 0, TEXT)
    with pytest.raises(UsageError, match=f"token {token} is not in the vocabulary of 384 tokens"):
        sessions.continued(key(), 2, [5, token])
    assert sessions.continued(key(), 6, [11])[0].tokens == [*TEXT, 11]


@pytest.mark.parametrize(("tokens", "wanted"), [([], 1), ([5], 2), ([5, 6], 64)])
def test_more_rows_than_tokens_are_refused(tokens: list[int], wanted: int) -> None:
    with pytest.raises(UsageError, match=f"{wanted} rows are wanted of {len(tokens)} tokens"):
        make().continued(key(), 0, tokens, wanted=wanted)


def test_a_lost_conversation_begins_anew() -> None:
    sessions = make(cuts := Cuts())
    session, _ = sessions.continued(key(), 0, TEXT)
    sessions.lose(session)
    assert cuts.heard == [(session.slot, 0)]
    with pytest.raises(SessionLostError):
        sessions.continued(key(), 6, [11])
    assert sessions.continued(key(), 0, TEXT) == (session, 0)


class AnyRequests(RuleBasedStateMachine):
    """Whatever is asked: slots are held once, the cache is never overfull, and texts are right."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions = Sessions(Capacity(3, 2, 20, 8), on_cut=self.cut)
        self.under_way: list[Session] = []
        self.texts: dict[Key, list[int]] = {}
        self.cached: dict[int, list[int]] = {slot: [] for slot in range(3)}

    def cut(self, slot: int, length: int) -> None:
        del self.cached[slot][length:]

    @rule(
        who=st.tuples(st.sampled_from("abc"), st.just("rows"), st.sampled_from([b"1", b"2", b"3"])),
        position=st.integers(0, 12),
        tokens=st.lists(st.integers(0, 8), max_size=12),
        more=st.integers(0, 6),
    )
    def ask(self, who: Key, position: int, tokens: list[int], more: int) -> None:
        before = {one.key: one.users for one in self.held()}
        try:
            session, kept = self.sessions.continued(who, position, tokens, more=more)
        except FedptError:
            after = {one.key for one in self.held()}
            assert all(who in after for who, users in before.items() if users)
            return
        assert session.tokens == [*self.texts.get(who, [])[:position], *tokens]
        self.texts[who] = list(session.tokens)
        if not session.users:
            assert self.cached[session.slot][:kept] == session.tokens[:kept]
        self.cached[session.slot] = list(session.tokens)
        session.users += 1
        self.under_way.append(session)

    @precondition(lambda self: self.under_way)
    @rule(place=st.integers(0, 99), is_lost=st.booleans())
    def end(self, place: int, is_lost: bool) -> None:
        session = self.under_way.pop(place % len(self.under_way))
        session.users -= 1
        if is_lost:
            self.sessions.lose(session)
            self.texts[session.key] = []

    @invariant()
    def slots_are_held_once(self) -> None:
        slots = [one.slot for one in self.held()]
        assert len(set(slots)) == len(slots) <= 3

    @invariant()
    def the_cache_is_not_overfull(self) -> None:
        assert sum(one.size for one in self.held()) <= 20

    def held(self) -> list[Session]:
        return list(self.sessions._sessions.values())


TestAnyRequests = AnyRequests.TestCase

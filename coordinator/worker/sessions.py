"""Conversations of devices with a worker: who holds which slot of the models' caches.

The least recently used conversation gives way; its device, told `session_lost`, sends all its
tokens again. A conversation that waits for its models is never put out. A device that opens many
puts out its own.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from fedpt.errors import BusyError, SessionLostError, TooLongError, UsageError
from fedpt.ids import DeviceId
from fedpt.token_texts import common_prefix

Key = tuple[DeviceId, Literal["rows", "answers"], bytes]
"""Rows and answers have caches apart: an answer's steps behind the device's tokens."""


@dataclass(slots=True, eq=False)
class Session:
    """One conversation. `tokens` is what the device believes that we hold."""

    key: Key
    slot: int
    tokens: list[int] = field(default_factory=list)
    users: int = 0
    """Requests of it that are under way."""
    room: int = 0
    """Tokens that it may come to, or has come to, while it is used."""

    @property
    def device(self) -> DeviceId:
        """Whose it is."""
        return self.key[0]

    @property
    def size(self) -> int:
        """Tokens of the cache that are spoken for."""
        return max(len(self.tokens), self.room if self.users else 0)


@dataclass(frozen=True, slots=True)
class Capacity:
    """How much a process holds."""

    slots: int
    """Conversations at a time."""
    slots_per_device: int
    context_tokens: int
    """Of all of them together."""
    vocabulary_size: int
    """Of the large model."""


class Sessions:
    """All conversations of a process."""

    def __init__(self, capacity: Capacity, *, on_cut: Callable[[int, int], None]) -> None:
        """Make room for them.

        Args:
            capacity: How many, how long.
            on_cut: Called with a slot and how many tokens of its text are still good.
        """
        self._sessions: OrderedDict[Key, Session] = OrderedDict()
        self._free = list(range(capacity.slots))
        self._capacity = capacity
        self._on_cut = on_cut

    def __len__(self) -> int:
        return len(self._sessions)

    def find(self, key: Key) -> Session | None:
        """A conversation that we hold."""
        return self._sessions.get(key)

    def continued(
        self, key: Key, position: int, tokens: list[int], *, wanted: int = 1, more: int = 0
    ) -> tuple[Session, int]:
        """The conversation, with its text cut at `position` and gone on with `tokens`.

        Args:
            key: Whose.
            position: How many tokens we should hold already.
            tokens: What comes after those.
            wanted: After so many of them rows are wanted.
            more: Room for so many further tokens.

        Returns:
            The conversation, and up to where its text is as before: at most to the first token
            after which a row is wanted.

        Raises:
            SessionLostError: We do not hold the tokens before the position.
            TooLongError: The conversation is longer than the context.
            UsageError: A token is not in the vocabulary.
            BusyError: All slots are in use at this very moment.
        """
        session = self._sessions.get(key)
        self._require_sense(session, position, tokens, wanted)
        length = position + len(tokens) + more
        if length > (most := self._capacity.context_tokens):
            raise TooLongError(f"{length} tokens; the context holds {most}")
        self._require_room(session, length)
        session = session or self._open(key)
        self._sessions.move_to_end(key)
        self._make_room(session, length)
        kept = position + common_prefix(session.tokens[position:], tokens)
        if kept < len(session.tokens) and not session.users:
            self._on_cut(session.slot, kept)
        session.tokens[position:] = tokens
        session.room = max(length, session.room if session.users else 0)
        return session, min(kept, len(session.tokens) - wanted)

    def lose(self, session: Session) -> None:
        """What its slot holds is not known any more: its device must send everything again."""
        session.tokens.clear()
        self._on_cut(session.slot, 0)

    def _require_sense(
        self, session: Session | None, position: int, tokens: list[int], wanted: int
    ) -> None:
        held = len(session.tokens) if session else 0
        if position > held:
            raise SessionLostError(f"{held} tokens are here, not {position}")
        size = self._capacity.vocabulary_size
        if (bad := next((token for token in tokens if token >= size), None)) is not None:
            raise UsageError(f"token {bad} is not in the vocabulary of {size} tokens")
        if wanted > len(tokens):
            raise UsageError(f"{wanted} rows are wanted of {len(tokens)} tokens")

    def _require_room(self, session: Session | None, length: int) -> None:
        """Nobody is put out in vain."""
        busy = [one for one in self._sessions.values() if one.users and one is not session]
        if sum(one.size for one in busy) + length > self._capacity.context_tokens:
            raise BusyError("the cache is full of conversations that are being answered")

    def _open(self, key: Key) -> Session:
        own = [one for one in self._sessions.values() if one.device == key[0]]
        if len(own) >= self._capacity.slots_per_device:
            self._close(_longest_unused(own))
        elif not self._free:
            self._close(_longest_unused(list(self._sessions.values())))
        session = self._sessions[key] = Session(key, self._free.pop())
        return session

    def _close(self, session: Session) -> None:
        del self._sessions[session.key]
        self._free.append(session.slot)
        self._on_cut(session.slot, 0)

    def _make_room(self, session: Session, length: int) -> None:
        """The cache is shared: close the longest unused until the text fits."""
        others = [one for one in self._sessions.values() if one is not session]
        used = sum(one.size for one in others)
        for one in others:
            if used + length <= self._capacity.context_tokens:
                return
            if not one.users:
                used -= one.size
                self._close(one)


def _longest_unused(sessions: list[Session]) -> Session:
    """The first that nobody waits for; they are in the order of their last use."""
    if (found := next((one for one in sessions if not one.users), None)) is None:
        raise BusyError(f"all {len(sessions)} conversations are being answered")
    return found

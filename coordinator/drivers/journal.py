"""The journal: every event of a daemon's life, in order, in a database.

SQLite by default, any database that SQLAlchemy knows by its URL. An event is in the journal before
anything that follows from it is told to anybody.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from coordinator.state import AnyEvent
from fedpt.errors import StorageError

E = TypeVar("E", bound=msgspec.Struct)

_metadata = sa.MetaData()
_events = sa.Table(
    "events",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("event", sa.LargeBinary, nullable=False),
)


class Journal(Generic[E]):
    """Append and read back. One process writes."""

    def __init__(self, path: Path, decode: Callable[[bytes], E]) -> None:
        """Open it, new if need be.

        Args:
            path: The database.
            decode: Reads one event's MessagePack.

        Raises:
            StorageError: It cannot be opened.
        """
        self._path = path
        self._decode = decode
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
            sa.event.listen(self._engine, "connect", _make_durable)
            _metadata.create_all(self._engine)
        except (SQLAlchemyError, OSError) as error:
            raise StorageError(f"cannot open the journal {path}: {_first_line(error)}") from error

    def append(self, event: E) -> None:
        """Add an event; it is on disk when this returns.

        Raises:
            StorageError: The disk is full or the database is damaged.
        """
        try:
            with self._engine.begin() as connection:
                connection.execute(_events.insert().values(event=msgspec.msgpack.encode(event)))
        except SQLAlchemyError as error:
            reason = _first_line(error)
            raise StorageError(f"cannot write the journal {self._path}: {reason}") from error

    def read(self) -> list[E]:
        """All events in order.

        Raises:
            StorageError: The journal is damaged, or of another version.
        """
        return _read(self._engine, self._path, self._decode)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()


def read_journal(path: Path) -> list[AnyEvent]:
    """All events of a federation whose journal another process writes; none before it has begun.

    Raises:
        StorageError: The journal is damaged, or of another version.
    """
    if not path.exists():
        return []
    location = f"file:{quote(str(path.absolute()))}"  # a folder's name may hold ? or #
    query = {"mode": "ro", "uri": "true"}
    engine = sa.create_engine(sa.URL.create("sqlite", database=location, query=query))
    try:
        is_begun = sa.inspect(engine).has_table(_events.name)
        return _read(engine, path, decode_event) if is_begun else []
    except SQLAlchemyError as error:
        raise _damaged(path, error) from error
    finally:
        engine.dispose()


def decode_event(content: bytes) -> AnyEvent:
    """Read one event of a federation.

    Raises:
        msgspec.MsgspecError: It is none.
    """
    event: AnyEvent = msgspec.msgpack.decode(content, type=AnyEvent)
    return event


def _read(engine: sa.Engine, path: Path, decode: Callable[[bytes], E]) -> list[E]:
    try:
        with engine.connect() as connection:
            query = sa.select(_events.c.event).order_by(_events.c.number)
            rows = [row.event for row in connection.execute(query)]
        return [decode(row) for row in rows]
    except (SQLAlchemyError, msgspec.MsgspecError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> StorageError:
    reason = _first_line(error)
    return StorageError(f"cannot read the journal {path}: {reason}; move it away to begin anew")


def _first_line(error: Exception) -> str:
    """SQLAlchemy adds the statement and a link on lines of their own."""
    return str(error).partition("\n")[0]


def _make_durable(connection: Any, _record: Any) -> None:  # Any: the database's own connection
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")

"""The journal: every event of a federation, in order, in a database.

SQLite by default, any database that SQLAlchemy knows by its URL. An event is in the journal before
anything that follows from it is told to anybody.
"""

from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from coordinator.state import AnyEvent
from fedpt.errors import StorageError

_metadata = sa.MetaData()
_events = sa.Table(
    "events",
    _metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("event", sa.LargeBinary, nullable=False),
)


class Journal:
    """Append and read back. One process writes."""

    def __init__(self, path: Path) -> None:
        """Open it, new if need be.

        Raises:
            StorageError: It cannot be opened.
        """
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._engine = sa.create_engine(sa.URL.create("sqlite", database=str(path)))
            sa.event.listen(self._engine, "connect", _make_durable)
            _metadata.create_all(self._engine)
        except (SQLAlchemyError, OSError) as error:
            raise StorageError(f"cannot open the journal {path}: {_first_line(error)}") from error

    def append(self, event: AnyEvent) -> None:
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

    def read(self) -> list[AnyEvent]:
        """All events in order.

        Raises:
            StorageError: The journal is damaged, or of another version.
        """
        return _read(self._engine, self._path)

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()


def read_journal(path: Path) -> list[AnyEvent]:
    """All events of a journal that another process writes; none if it has not begun yet.

    Raises:
        StorageError: The journal is damaged, or of another version.
    """
    if not path.exists():
        return []
    engine = sa.create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    try:
        return _read(engine, path) if sa.inspect(engine).has_table(_events.name) else []
    except SQLAlchemyError as error:
        raise _damaged(path, error) from error
    finally:
        engine.dispose()


def _read(engine: sa.Engine, path: Path) -> list[AnyEvent]:
    try:
        with engine.connect() as connection:
            query = sa.select(_events.c.event).order_by(_events.c.number)
            rows = [row.event for row in connection.execute(query)]
        return [msgspec.msgpack.decode(row, type=AnyEvent) for row in rows]
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

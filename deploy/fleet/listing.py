"""The list of a fleet: what the operator's folder knows, and what the server does."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from deploy.fleet.fleet_folder import DeviceRecord
from fedpt.enrolment import Member


@dataclass(frozen=True, slots=True)
class Row:
    """One board or worker."""

    name: str
    board: str
    state: str
    until: str
    """When the token or the certificate ends: a date, or empty."""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def merge(
    records: Sequence[DeviceRecord], members: Sequence[Member] | None, now: datetime
) -> list[Row]:
    """One row a name; `members` is None when the server was not asked."""
    at_server = {one.name: one for one in members or ()}
    here = {one.name: one for one in records}
    return [
        _row(name, here.get(name), at_server.get(name), now)
        for name in sorted(here.keys() | at_server.keys())
    ]


def as_table(rows: Sequence[Row]) -> str:
    """For people."""
    if not rows:
        return "no boards yet; add one: fedpt fleet add NAME --board rpi5"
    cells = [("name", "board", "state", "until")]
    cells += [(row.name, row.board, row.state, row.until) for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    return "\n".join(
        "  ".join(
            text.ljust(width) for text, width in zip(line, [*widths, 0], strict=True)
        ).rstrip()
        for line in cells
    )


def _row(name: str, record: DeviceRecord | None, member: Member | None, now: datetime) -> Row:
    board = record.board if record else member.board if member else ""
    if (record and record.is_removed) or (member and member.state == "removed"):
        return Row(name, board, "removed", "")
    if member is not None:
        return Row(name, board, member.state, _day(member.expires_unix_s))
    assert record is not None  # a row is of either
    if record.token_expires_unix_s is None:
        return Row(name, board, "ready key", "")
    is_over = record.token_expires_unix_s < now.timestamp()
    state = "token expired" if is_over else "token waits"
    return Row(name, board, state, _day(record.token_expires_unix_s))


def _day(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d")

"""The list of a fleet joins what the operator has and what the server knows."""

from datetime import UTC, datetime

from deploy.fleet.fleet_folder import DeviceRecord
from deploy.fleet.listing import as_table, merge
from fedpt.enrolment import Member

NOW = datetime(2026, 11, 22, tzinfo=UTC)
_DAY_S = 86_400


def _record(name, *, token_days=None, **more):
    expires = None if token_days is None else NOW.timestamp() + token_days * _DAY_S
    return DeviceRecord(
        name=name, board="rpi5", role="device", added_unix_s=1.0, token_expires_unix_s=expires,
        **more,
    )  # fmt: skip


def _member(name, state="enrolled"):
    return Member(
        name=name,
        board="rpi4",
        state=state,
        enrolled_unix_s=NOW.timestamp(),
        expires_unix_s=NOW.timestamp() + 300 * _DAY_S,
    )


def test_every_state_of_a_board_is_told():
    records = [
        _record("a-waits", token_days=2),
        _record("b-late", token_days=-2),
        _record("c-enrolled", token_days=-2),
        _record("d-removed", token_days=2, is_removed=True),
        _record("e-ready"),
    ]
    members = [_member("c-enrolled"), _member("d-removed"), _member("f-elsewhere", "removed")]
    rows = merge(records, members, NOW)
    assert [(row.name, row.state) for row in rows] == [
        ("a-waits", "token waits"),
        ("b-late", "token expired"),
        ("c-enrolled", "enrolled"),
        ("d-removed", "removed"),
        ("e-ready", "ready key"),
        ("f-elsewhere", "removed"),
    ]


def test_without_the_server_the_folder_is_all_there_is():
    assert [row.state for row in merge([_record("x", token_days=1)], None, NOW)] == ["token waits"]


def test_the_table_is_aligned_and_an_empty_one_says_what_to_do():
    table = as_table(merge([_record("kitchen", token_days=2)], [_member("attic")], NOW))
    assert table.splitlines() == [
        "name     board  state        until",
        "attic    rpi4   enrolled     2027-09-18",
        "kitchen  rpi5   token waits  2026-11-24",
    ]
    assert as_table([]) == "no boards yet; add one: fedpt fleet add NAME --board rpi5"

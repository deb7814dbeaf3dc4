"""Values that a daemon can do without."""

from pathlib import Path

import msgspec
import pytest

from fedpt.struct_file import read_struct


class Record(msgspec.Struct, frozen=True):
    """What is kept."""

    number: int


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(msgspec.json.encode(Record(7)))
    assert read_struct(path, Record, lost="made again") == Record(7)


def test_where_nothing_was_there_is_nothing_and_nothing_to_say(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert read_struct(tmp_path / "record.json", Record, lost="made again") is None
    assert caplog.text == ""


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"number": "7"}', b"[" * 100_000])
def test_what_cannot_be_read_is_lost_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    assert read_struct(path, Record, lost="made again") is None
    assert f"cannot read {path}, made again:" in caplog.text

"""Lessons on their way to a daemon; asking is tested with the API itself."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_runtime.drivers.local_client import teach_daemon
from edge_runtime.lessons import Learnt, Lesson
from edge_runtime.settings import socket_in
from fedpt.errors import DataFileError, DeviceDownError, UsageError
from tests.fakes.served_assistant import ServedDevice, served_device

GOOD_NIGHT = Lesson("Good night", "Sleep well.")


@pytest.fixture
def device(tmp_path: Path) -> Iterator[ServedDevice]:
    with served_device(tmp_path) as one:
        yield one


@pytest.fixture
def socket(device: ServedDevice) -> Path:
    return socket_in(device.config.parent / "state")


def test_a_lesson_is_kept_once(socket: Path) -> None:
    assert teach_daemon(socket, GOOD_NIGHT) == Learnt(True, 1)
    assert teach_daemon(socket, GOOD_NIGHT) == Learnt(False, 1)


def test_a_lesson_that_is_none_is_refused_in_words(socket: Path) -> None:
    with pytest.raises(UsageError, match=r"^the answer is empty"):
        teach_daemon(socket, Lesson("Good night", ""))


def test_a_damaged_data_file_is_told_as_such(socket: Path, device: ServedDevice) -> None:
    device.data.write_text("half a li")
    with pytest.raises(DataFileError, match="line 1"):
        teach_daemon(socket, GOOD_NIGHT)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"question": "a", "answer": 3}', b"[" * 9999])
def test_a_body_that_is_no_lesson_is_refused(socket: Path, body: bytes) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        reply = client.post("http://device/teach", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("not a lesson: ")


def test_without_a_daemon_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceDownError, match="fedpt device run"):
        teach_daemon(tmp_path / "a.sock", GOOD_NIGHT)

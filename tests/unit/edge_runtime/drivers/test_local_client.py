"""What a daemon is taught over its socket; asking is tested with the API itself."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_runtime.data.store import DataStore
from edge_runtime.drivers.local_client import daemon_status
from edge_runtime.settings import socket_in
from fedpt.errors import DeviceDownError
from fedpt.examples import Example
from tests.fakes.served_assistant import ServedDevice, served_device


@pytest.fixture
def device(tmp_path: Path) -> Iterator[ServedDevice]:
    with served_device(tmp_path) as one:
        yield one


@pytest.fixture
def socket(device: ServedDevice) -> Path:
    return socket_in(device.config.parent / "state")


def _taught(socket: Path, question: str, answer: str) -> httpx.Response:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        lesson = {"question": question, "answer": answer}
        return client.post("http://device/teach", json=lesson)


def test_a_lesson_is_kept_once(socket: Path, device: ServedDevice) -> None:
    learnt = [_taught(socket, "Good night", "Sleep well.").json() for _ in range(2)]
    assert [(one["id"], one["is_new"], one["examples"]) for one in learnt] == [
        (1, True, 1),
        (1, False, 1),
    ]
    assert DataStore(device.data).usable() == {1: Example("Good night", "Sleep well.")}


def test_a_lesson_with_a_secret_is_told_as_such(socket: Path) -> None:
    learnt = _taught(socket, "my card?", "4111 1111 1111 1111").json()
    assert (learnt["secrets"], learnt["examples"]) == (["card number"], 0)


def test_a_lesson_that_is_none_is_refused_in_words(socket: Path) -> None:
    reply = _taught(socket, "Good night", "")
    assert (reply.status_code, reply.json()["code"]) == (400, "usage")
    assert reply.json()["error"].startswith("the answer is empty")


def test_a_damaged_store_is_told_as_such(socket: Path, device: ServedDevice) -> None:
    device.data.write_text("half a li")
    assert _taught(socket, "Good night", "Sleep well.").json()["code"] == "data_file"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"question": "a", "answer": 3}', b"[" * 9999])
def test_a_body_that_is_no_lesson_is_refused(socket: Path, body: bytes) -> None:
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket))) as client:
        reply = client.post("http://device/teach", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("not a lesson: ")


def test_without_a_daemon_that_is_told(tmp_path: Path) -> None:
    with pytest.raises(DeviceDownError, match="fedpt device run"):
        daemon_status(tmp_path / "a.sock")

"""A command line's way to the daemon of its board: over the local socket."""

import contextlib
import socket as connection
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import msgspec

from edge_runtime.drivers.local_protocol import (
    AnswerLine,
    Refusal,
    line_to_item,
    question_to_body,
    to_error,
)
from edge_runtime.question import AnswerSummary, Notice, Piece, Question
from fedpt.errors import DeviceDownError, FedptError, UsageError

_PATIENCE_S: Final = 600.0
"""How long the client waits for the next piece: others may be answered first."""


def ask_daemon(socket: Path, question: Question) -> Iterator[Piece | Notice | AnswerSummary]:
    """Ask the assistant of a running device daemon; closing it stops the answer there.

    Raises:
        DeviceDownError: No daemon listens there.
        FedptError: It refuses the question, or cannot answer it.
    """
    content = msgspec.json.encode(question_to_body(question))
    with (
        _translated(socket),
        _client(socket) as client,
        client.stream("POST", "http://device/answer", content=content) as reply,
    ):
        if reply.is_error:
            reply.read()
            raise _refusal(reply)
        for text in reply.iter_lines():
            line = msgspec.json.decode(text, type=AnswerLine)
            if line.error is not None:
                raise to_error(line.error, line.code)
            if (item := line_to_item(line)) is not None:
                yield item


def is_served(socket: Path) -> bool:
    """Whether a daemon listens there.

    Raises:
        UsageError: One may, but it is not ours to use.
    """
    try:
        daemon_status(socket)
    except DeviceDownError:
        return False
    return True


def daemon_status(socket: Path, *, timeout_s: float = _PATIENCE_S) -> dict[str, object]:
    """How a running device daemon is.

    Raises:
        DeviceDownError: No daemon listens there.
    """
    with _translated(socket), _client(socket, timeout_s) as client:
        status: dict[str, object] = client.get("http://device/status").json()
        return status


def forget_personal(socket: Path) -> None:
    """Have a running device daemon delete its personal adapter; it is gone then.

    Raises:
        DeviceDownError: No daemon listens there.
        UsageError: It refuses.
    """
    with _translated(socket), _client(socket) as client:
        reply = client.post("http://device/personal/forget")
        if reply.is_error:
            raise _refusal(reply)


def _client(socket: Path, timeout_s: float = _PATIENCE_S) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=timeout_s)


def _refusal(reply: httpx.Response) -> FedptError:
    """Why a request was refused."""
    try:
        refusal = msgspec.json.decode(reply.content, type=Refusal)
    except msgspec.MsgspecError:
        return UsageError(f"the device daemon answers with status {reply.status_code}")
    return to_error(refusal.error, refusal.code)


@contextlib.contextmanager
def _translated(socket: Path) -> Iterator[None]:
    try:
        # httpx leaks a socket that it cannot connect
        with connection.socket(connection.AF_UNIX) as probe:
            probe.connect(str(socket))
        yield
    except PermissionError as error:
        raise UsageError(
            f"only the device's own user may use {socket}: try sudo -u with that user's name"
        ) from error
    except (httpx.TransportError, OSError) as error:
        raise DeviceDownError(
            f"no device daemon listens at {socket} ({error}); start it with 'fedpt device run'"
        ) from error

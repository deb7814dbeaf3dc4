"""The assistant's door on the board: HTTP over a Unix socket that only its owner may use.

`POST /answer` streams JSON lines: pieces, then the summary, or an error. `GET /status` says how the
device is. Also the client for both, for the command line.
"""

import contextlib
import logging
import os
import socket as connection
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import httpx
import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge_runtime.assistant import AnswerSummary, Assistant, Question
from fedpt.errors import DeviceDownError, FedptError, UsageError

_logger = logging.getLogger(__name__)

_PATIENCE_S: Final = 600.0
"""How long the client waits for the next piece: others may be answered first."""


class AskBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /answer`."""

    question: str
    mode: Literal["local", "steered"] = "steered"
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


class AnswerLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of the reply: exactly one of the three."""

    piece: str | None = None
    summary: AnswerSummary | None = None
    error: str | None = None


class LocalApi:
    """Serves an assistant on a Unix socket, on a thread of its own."""

    def __init__(
        self, assistant: Assistant, socket: Path, *, status: Callable[[], dict[str, object]]
    ) -> None:
        self._assistant = assistant
        self._socket = socket
        self._status = status
        routes = [
            Route("/answer", self._answer, methods=["POST"]),
            Route("/status", self._get_status),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes),
            log_config=None,
            access_log=False,
            lifespan="off",
        )
        self._server = uvicorn.Server(config)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen; where that cannot be, the device goes on without this door."""
        try:
            listener = _listen(self._socket)
        except OSError:
            _logger.exception("the local API cannot listen")
            return
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="local-api", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening; a running answer is cut off."""
        self._server.should_exit = True
        self._server.force_exit = True
        if self._thread is not None:
            self._thread.join(5)
        self._socket.unlink(missing_ok=True)

    async def _answer(self, request: Request) -> Response:
        try:
            body = msgspec.json.decode(await request.body(), type=AskBody)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            return JSONResponse({"error": f"not a question: {error}"}, status_code=400)
        question = Question(body.question, body.mode, body.max_tokens)
        return StreamingResponse(self._lines(question), media_type="application/x-ndjson")

    def _lines(self, question: Question) -> Iterator[bytes]:
        try:
            for item in self._assistant.answer(question):
                yield _line(item)
        except FedptError as error:
            yield msgspec.json.encode(AnswerLine(error=str(error))) + b"\n"

    async def _get_status(self, _: Request) -> Response:
        return JSONResponse(self._status())


def _listen(path: Path) -> connection.socket:
    """A socket for its owner only; uvicorn would open its own to everybody."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    listener = connection.socket(connection.AF_UNIX)
    before = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen()
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _line(item: str | AnswerSummary) -> bytes:
    line = AnswerLine(piece=item) if isinstance(item, str) else AnswerLine(summary=item)
    return msgspec.json.encode(line) + b"\n"


def ask_daemon(socket: Path, question: Question) -> Iterator[str | AnswerSummary]:
    """Ask the assistant of a running device daemon.

    Raises:
        DeviceDownError: No daemon listens there.
        UsageError: It refuses the question.
    """
    body = AskBody(question=question.text, mode=question.mode, max_tokens=question.max_tokens)
    with (
        _translated(socket),
        _client(socket) as client,
        client.stream("POST", "http://device/answer", content=msgspec.json.encode(body)) as reply,
    ):
        if reply.is_error:
            raise UsageError(reply.read().decode(errors="replace"))
        for text in reply.iter_lines():
            line = msgspec.json.decode(text, type=AnswerLine)
            if line.error is not None:
                raise UsageError(line.error)
            item = line.piece if line.summary is None else line.summary
            if item is not None:
                yield item


def is_served(socket: Path) -> bool:
    """Whether a daemon listens there."""
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


def _client(socket: Path, timeout_s: float = _PATIENCE_S) -> httpx.Client:
    return httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), timeout=timeout_s)


@contextlib.contextmanager
def _translated(socket: Path) -> Iterator[None]:
    try:
        # httpx leaks a socket that it cannot connect
        with connection.socket(connection.AF_UNIX) as probe:
            probe.connect(str(socket))
        yield
    except (httpx.TransportError, OSError) as error:
        raise DeviceDownError(
            f"no device daemon listens at {socket} ({error}); start it with 'fedpt device run'"
        ) from error

"""The enrolment service over HTTPS: MessagePack in, MessagePack out.

```
POST /enrol     EnrolmentRequest -> CertificateReply
POST /renew     RenewalRequest   -> CertificateReply
POST /operator  SignedStatement  -> OperatorReply
GET  /health    "ok"
```
No client certificate is asked for: a board that enrols has none yet, and all else is signed.
"""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from coordinator.enrolment.service import EnrolmentService
from coordinator.enrolment.settings import EnrolmentSettings
from fedpt.drivers.service_manager import ServiceManager, Watchdog
from fedpt.enrolment import EnrolmentRequest, Refusal, RenewalRequest, SignedStatement
from fedpt.errors import EnrolmentError, FedptError
from fedpt.wire.messages import Message

_logger = logging.getLogger(__name__)

_LARGEST_REQUEST: Final = 64 * 1024
_BAD_REQUEST: Final = 400
_REFUSED: Final = 403
_TOO_LARGE: Final = 413
_OUR_FAULT: Final = 500
_SLOWEST_REQUEST_S: Final = 20
_BEAT_EVERY_S: Final = 1.0

M = TypeVar("M", bound=Message)
Handler = Callable[[Request], Awaitable[Response]]


def serve(settings: EnrolmentSettings) -> None:
    """Answer until SIGTERM or SIGINT.

    Raises:
        FedptError: A file is missing or damaged, or the port is in use.
    """
    manager = ServiceManager.from_environment()
    service = EnrolmentService(settings)
    try:
        with _listening(settings) as listener:
            _logger.info("enrolment service is up", extra={"port": settings.port})
            _make_server(make_application(service, manager), settings).run(sockets=[listener])
    finally:
        manager.stopping()
        service.close()


def make_application(service: EnrolmentService, manager: ServiceManager) -> Starlette:
    """The routes, and a beat from the event loop that answers them."""

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok")

    @asynccontextmanager
    async def beating(_app: Starlette) -> AsyncIterator[None]:
        manager.ready()
        heart = asyncio.create_task(_beat(Watchdog(manager)))
        yield
        heart.cancel()

    return Starlette(
        routes=[
            Route("/enrol", _handler(EnrolmentRequest, service.enrol), methods=["POST"]),
            Route("/renew", _handler(RenewalRequest, service.renew), methods=["POST"]),
            Route("/operator", _handler(SignedStatement, service.operate), methods=["POST"]),
            Route("/health", health),
        ],
        lifespan=beating,
    )


async def _beat(watchdog: Watchdog) -> None:
    while True:
        watchdog.beat()
        await asyncio.sleep(_BEAT_EVERY_S)


def _listening(settings: EnrolmentSettings) -> socket.socket:
    """Bound here, for uvicorn would end the process without a line of ours."""
    try:
        return socket.create_server((settings.host, settings.port))
    except OSError as error:
        raise EnrolmentError(
            f"cannot listen at {settings.host}:{settings.port}: {error.strerror}"
        ) from error


def _make_server(application: Starlette, settings: EnrolmentSettings) -> uvicorn.Server:
    config = uvicorn.Config(
        application,
        host=settings.host,
        port=settings.port,
        ssl_certfile=settings.certificate_file,
        ssl_keyfile=settings.key_file,
        log_config=None,
        access_log=False,
        lifespan="on",
        limit_concurrency=100,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=_SLOWEST_REQUEST_S,
        server_header=False,
    )
    return uvicorn.Server(config)


def _handler(kind: type[M], answer: Callable[[M], Message]) -> Handler:
    """Requests are answered one after the other, on the event loop: each takes milliseconds."""

    async def handle(request: Request) -> Response:
        body = await _read_body(request)
        try:
            reply = answer(msgspec.msgpack.decode(body, type=kind))
        except (msgspec.MsgspecError, ValueError, RecursionError):
            reason = f"not a {kind.__name__}"
            return _refusal(_BAD_REQUEST, Refusal(code="malformed_message", reason=reason))
        except EnrolmentError as error:
            _logger.warning("refused: %s", error, extra={"path": request.url.path})
            return _refusal(_REFUSED, Refusal(code=error.code, reason=str(error)))
        except FedptError as error:
            _logger.error("%s", error, extra={"path": request.url.path})
            return _refusal(_OUR_FAULT, Refusal(code=error.code, reason="see the service's log"))
        return Response(msgspec.msgpack.encode(reply), media_type="application/msgpack")

    return handle


async def _read_body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _LARGEST_REQUEST:
            raise HTTPException(_TOO_LARGE)
    return body


def _refusal(status: int, refusal: Refusal) -> Response:
    return Response(
        msgspec.msgpack.encode(refusal), status_code=status, media_type="application/msgpack"
    )

"""The routes of our own command line, on the local socket only; see `drivers.local_protocol`."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from edge_runtime.api.answering import Answering
from edge_runtime.api.api_errors import ApiError
from edge_runtime.api.bodies import read_body
from edge_runtime.api.openai_translation import DeviceTraits
from edge_runtime.consent import choose_mode
from edge_runtime.drivers.local_protocol import (
    AnswerLine,
    AskBody,
    body_to_question,
    item_to_line,
)
from edge_runtime.lessons import Learnt, Lesson
from edge_runtime.question import Question
from fedpt.errors import FedptError


@dataclass(frozen=True, slots=True)
class NativeRoutes:
    """What the handlers need."""

    answering: Answering
    traits: DeviceTraits
    largest_body: int
    status: Callable[[], dict[str, object]]
    teach: Callable[[Lesson], Learnt]
    forget_personal: Callable[[], None]

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/answer", self._answer, methods=["POST"]),
            Route("/teach", self._teach, methods=["POST"]),
            Route("/personal/forget", self._forget_personal, methods=["POST"]),
            Route("/status", self._get_status),
        ]

    async def _answer(self, request: Request) -> Response:
        try:
            body = msgspec.json.decode(await read_body(request, self.largest_body), type=AskBody)
        except ApiError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return JSONResponse({"error": f"not a question: {error}"}, status_code=400)
        lines = self._lines(request, body_to_question(body))
        return StreamingResponse(lines, media_type="application/x-ndjson")

    async def _lines(self, request: Request, question: Question) -> AsyncIterator[bytes]:
        traits = self.traits
        mode, note = choose_mode(traits.policy, question.mode, has_large=traits.has_large)
        try:
            async for item in await self.answering.begin(
                request, replace(question, mode=mode), note
            ):
                yield _line(item_to_line(item))
        except ApiError as error:
            yield _line(AnswerLine(error=str(error), code=error.code or ""))

    async def _teach(self, request: Request) -> Response:
        try:
            body = await read_body(request, self.largest_body)
            lesson = msgspec.json.decode(body, type=Lesson)
            learnt = await run_in_threadpool(self.teach, lesson)
        except ApiError as error:
            return JSONResponse({"error": str(error)}, error.status)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return JSONResponse({"error": f"not a lesson: {error}"}, status_code=400)
        except FedptError as error:
            return JSONResponse({"error": str(error), "code": error.code}, status_code=400)
        return Response(msgspec.json.encode(learnt), media_type="application/json")

    async def _forget_personal(self, _: Request) -> Response:
        try:
            await run_in_threadpool(self.forget_personal)
        except FedptError as error:
            return JSONResponse({"error": str(error), "code": error.code}, status_code=400)
        return Response(status_code=204)

    async def _get_status(self, _: Request) -> Response:
        return JSONResponse(self.status())


def _line(line: AnswerLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"

"""The routes of OpenAI's API: HTTP in, HTTP out; what they mean is in the translation."""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from edge_runtime.api.answering import Answering
from edge_runtime.api.api_errors import ApiError, error_body
from edge_runtime.api.bodies import read_body
from edge_runtime.api.openai_messages import (
    ChatRequest,
    CompletionRequest,
    Facts,
    ModelCard,
    ModelList,
)
from edge_runtime.api.openai_replies import (
    ChatChunks,
    Item,
    ReplyHead,
    TextChunks,
    chat_reply,
    text_reply,
)
from edge_runtime.api.openai_translation import (
    MODELS,
    Asked,
    DeviceTraits,
    chat_to_asked,
    read_request,
    require_model,
    text_to_asked,
)

_STREAM_HEADERS: Final = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
"""The second keeps nginx from collecting the stream."""


@dataclass(frozen=True, slots=True)
class OpenAiRoutes:
    """What the handlers need."""

    answering: Answering
    traits: DeviceTraits
    largest_body: int
    started_unix_s: int

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._complete, methods=["POST"]),
            Route("/v1/models", self._list_models),
            Route("/v1/models/{model}", self._show_model),
        ]

    async def _chat(self, request: Request) -> Response:
        content = await read_body(request, self.largest_body)
        asked = await run_in_threadpool(  # a schema may be long
            lambda: chat_to_asked(read_request(content, ChatRequest), self.traits)
        )
        head, items = await self._begin(request, asked, "chatcmpl")
        if not asked.is_streamed:
            return _json(chat_reply(head, [item async for item in items], tools=asked.tools))
        chunks = ChatChunks(head, tools=asked.tools, includes_usage=asked.includes_usage)
        return _stream(_events(chunks.feed, items, first=chunks.begin()))

    async def _complete(self, request: Request) -> Response:
        content = await read_body(request, self.largest_body)
        asked = text_to_asked(read_request(content, CompletionRequest), self.traits)
        head, items = await self._begin(request, asked, "cmpl")
        if not asked.is_streamed:
            return _json(text_reply(head, [item async for item in items]))
        chunks = TextChunks(head, includes_usage=asked.includes_usage)
        return _stream(_events(chunks.feed, items))

    async def _begin(
        self, request: Request, asked: Asked, kind: str
    ) -> tuple[ReplyHead, AsyncIterator[Item]]:
        items = await self.answering.begin(request, asked.question, asked.note)
        head = ReplyHead(f"{kind}-{secrets.token_hex(12)}", int(time.time()), asked.model)
        return head, items

    async def _list_models(self, _: Request) -> Response:
        cards = tuple(ModelCard(id=name, created=self.started_unix_s) for name in MODELS)
        traits = self.traits
        facts: Facts = {
            "share_questions": traits.policy,
            "has_large": traits.has_large,
        }
        return _json(ModelList(data=cards, fedpt=facts))

    async def _show_model(self, request: Request) -> Response:
        name = request.path_params["model"]
        require_model(name)
        return _json(ModelCard(id=name, created=self.started_unix_s))


def _json(reply: msgspec.Struct) -> Response:
    return Response(msgspec.json.encode(reply), media_type="application/json")


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream", headers=_STREAM_HEADERS)


async def _events(
    feed: Callable[[Item], Iterator[msgspec.Struct]],
    items: AsyncIterator[Item],
    first: msgspec.Struct | None = None,
) -> AsyncIterator[bytes]:
    """Server-sent events; a fault in mid-answer is one too, for the status is out already."""
    if first is not None:
        yield _event(first)
    try:
        async for item in items:
            for chunk in feed(item):
                yield _event(chunk)
    except ApiError as error:
        yield _event(error_body(error))
        return
    yield b"data: [DONE]\n\n"


def _event(content: msgspec.Struct) -> bytes:
    return b"data: " + msgspec.json.encode(content) + b"\n\n"

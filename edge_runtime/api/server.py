"""The two applications: what is served on the local socket, and what over TCP."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edge_runtime.api.answer_desk import AnswerDesk, Item
from edge_runtime.api.answering import Answering
from edge_runtime.api.api_errors import ApiError
from edge_runtime.api.api_metrics import ApiMetrics
from edge_runtime.api.auth import DoorRules, guarded
from edge_runtime.api.chat_page import page_route
from edge_runtime.api.error_replies import reply_to_api_error, reply_to_http_error
from edge_runtime.api.native_routes import NativeRoutes
from edge_runtime.api.openai_routes import OpenAiRoutes
from edge_runtime.api.openai_translation import DeviceTraits
from edge_runtime.lessons import learn
from edge_runtime.question import Question
from edge_runtime.settings import DeviceSettings
from edge_runtime.training_view import TrainingView
from fedpt.drivers.llama_grammar import schema_to_gbnf


class ServedAssistant(Protocol):
    """What the API needs of an assistant."""

    @property
    def chat_template(self) -> str:
        """The small model's; empty if it has none."""

    @property
    def has_large(self) -> bool:
        """Whether there is a large model to ask, at least in principle."""

    def answer(self, question: Question) -> Iterator[Item]:
        """Answer, piece by piece."""


class ApiServer:
    """Everything behind the doors; both applications share one desk."""

    def __init__(
        self,
        assistant: ServedAssistant,
        settings: DeviceSettings,
        *,
        status: Callable[[], dict[str, object]],
        training: Callable[[], TrainingView],
        forget_personal: Callable[[], None],
    ) -> None:
        self.desk = AnswerDesk(assistant.answer, most_waiting=settings.api.most_waiting)
        self._metrics = ApiMetrics(lambda: self.desk.waiting, training)
        traits = DeviceTraits(
            template=assistant.chat_template,
            system_prompt=settings.assistant.system_prompt,
            policy=settings.assistant.share_questions,
            has_large=assistant.has_large,
            to_grammar=schema_to_gbnf,
        )
        largest = settings.api.largest_request_kb * 1024
        self._answering = Answering(self.desk, self._metrics)
        self._openai = OpenAiRoutes(self._answering, traits, largest, int(time.time()))
        self._native = NativeRoutes(
            self._answering,
            traits,
            largest,
            status,
            partial(learn, settings.data),
            forget_personal,
        )

    def on_socket(self) -> ASGIApp:
        """For the local socket, which only its owner can open: everything."""
        return _application([*self._native.routes(), *self._public()])

    def on_tcp(self, rules: DoorRules) -> ASGIApp:
        """For TCP: behind a door, and without the command line's routes."""
        app = guarded(_application(self._public()), rules)
        if not rules.origins:
            return app
        return CORSMiddleware(
            app,
            allow_origins=sorted(rules.origins),
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
        )

    def _public(self) -> list[Route]:
        return [
            *self._openai.routes(),
            Route("/health", _health),
            Route("/metrics", self._show_metrics),
            page_route(),
        ]

    async def _show_metrics(self, _: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4")


async def _health(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _application(routes: list[Route]) -> ASGIApp:
    return Starlette(
        routes=routes,
        exception_handlers={ApiError: reply_to_api_error, HTTPException: reply_to_http_error},
    )

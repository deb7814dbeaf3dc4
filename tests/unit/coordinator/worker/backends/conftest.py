"""Connections to model servers, closed after each test."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from coordinator.settings import BackEndSettings
from coordinator.worker.backends.model_server import ModelServer

Connect = Callable[[BackEndSettings], ModelServer]


@pytest.fixture
def connect() -> Iterator[Connect]:
    with ExitStack() as stack:

        def open_server(settings: BackEndSettings) -> ModelServer:
            server = ModelServer(settings, first_timeout_s=0)
            stack.callback(server.close)
            return server

        yield open_server

"""The API in front of real models, tiny ones, small and large in one process."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import openai
import pytest

from edge_runtime.assistant import Assistant
from edge_runtime.drivers.local_large import LocalLarge
from edge_runtime.settings import AssistantSettings
from edge_runtime.steering import LargeAccess, Traffic
from fedpt.drivers.llama import CachedText, LlamaContext, LlamaModel
from tests.fakes.api_servers import RunningApi, running_api
from tests.fakes.tiny_federation import TinyFederation

SETTINGS = AssistantSettings(context_tokens=1536, answer_tokens=24, threads=1)


@pytest.fixture(scope="package")
def assistant(tiny: TinyFederation) -> Iterator[Assistant]:
    """With adapter and large model."""
    with ExitStack() as stack:
        small = stack.enter_context(LlamaModel(tiny.small))
        large = stack.enter_context(LlamaModel(tiny.large))
        context = stack.enter_context(
            LlamaContext(large, tokens=SETTINGS.context_tokens, threads=SETTINGS.threads)
        )
        access = LargeAccess(LocalLarge(CachedText(context), clock=time.monotonic), Traffic())
        assistant = Assistant(small, SETTINGS, large=access)
        stack.callback(assistant.close)
        assistant.switch("tiny-adapter", tiny.adapter_gguf)
        yield assistant


@pytest.fixture(scope="package")
def api(assistant: Assistant, tiny: TinyFederation) -> Iterator[RunningApi]:
    """Over TCP, without a token."""
    with running_api(assistant, tiny.folder, assistant_settings=SETTINGS) as running:
        yield running


@pytest.fixture(scope="package")
def client(api: RunningApi) -> Iterator[openai.OpenAI]:
    """OpenAI's own client."""
    url = f"{api.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0, timeout=60) as client:
        yield client

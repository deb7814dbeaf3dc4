"""The small model, the examples as its tokens, and a training of them."""

from collections.abc import Callable, Iterator

import msgspec
import pytest

from edge_runtime.data.preparing import Prepared
from edge_runtime.training.how import How
from edge_runtime.training.network import Network, open_network
from edge_runtime.training.trainer import Task
from fedpt.chat import EncodedExample, encode_example
from fedpt.drivers.llama import LlamaModel
from fedpt.gguf_file import read_gguf
from tests.fakes.quiet_torch import quiet_torch
from tests.fakes.tiny_federation import EXAMPLES, TinyFederation
from tests.fakes.wire_messages import PLAN

THREE_EPOCHS = msgspec.structs.replace(PLAN, epochs=3)


@pytest.fixture(scope="session")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small, vocabulary_only=True) as one:
        yield one


@pytest.fixture(scope="session")
def encoded(model: LlamaModel) -> list[EncodedExample]:
    return [encode_example(model, example) for example in EXAMPLES]


@pytest.fixture
def task(encoded: list[EncodedExample]) -> Task:
    """All examples, the last two held out."""
    prepared = Prepared(encoded, [1, 2, 3, 4, 5], encoded[3:], truncated=0, dropped=0)
    return Task(prepared, THREE_EPOCHS, How(pass_tokens=64), seed=1)


@pytest.fixture
def open_tiny(tiny: TinyFederation) -> Callable[[How], Network]:
    """The small model with its adapter, in some mode."""
    return lambda how: open_network(read_gguf(tiny.small), tiny.adapter, how)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with quiet_torch():
        yield

"""The small model and the examples as its tokens."""

from collections.abc import Iterator

import pytest

from fedpt.chat import EncodedExample, encode_example
from fedpt.drivers.llama import LlamaModel
from tests.fakes.tiny_federation import EXAMPLES, TinyFederation


@pytest.fixture(scope="session")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small, vocabulary_only=True) as one:
        yield one


@pytest.fixture(scope="session")
def encoded(model: LlamaModel) -> list[EncodedExample]:
    return [encode_example(model, example) for example in EXAMPLES]

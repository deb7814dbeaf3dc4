"""Choosing a type: the least loss that fits, and a clear word where nothing does."""

from pathlib import Path

import numpy as np
import pytest

from converters.gguf_output import PlannedTensor, write_gguf
from converters.quantise import Adjustments
from converters.quantise_choice import (
    choose_for_board,
    choose_for_size,
    expected_loss,
    parse_size,
)
from converters.quantise_facts import BOARDS, FAST_ON_ARM, LOSSES, NEEDS_IMPORTANCE
from fedpt.errors import UsageError
from fedpt.gguf_file import GgufFile, read_gguf
from fedpt.gguf_types import GGML_TYPE_IDS

pytestmark = pytest.mark.llama

PLAIN = Adjustments()


@pytest.mark.parametrize(
    ("text", "size"),
    [("90MB", 90_000_000), ("1.5 GB", 1_500_000_000), ("2MiB", 1 << 21), ("512k", 512_000)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "90 bytes", "1e9"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write it like 90MB"):
        parse_size(text)


def test_the_best_that_fits_is_chosen(base: GgufFile) -> None:
    room = base.path.stat().st_size
    assert choose_for_size(base, room, PLAIN).forecast.kind == "F16"  # loses nothing either
    chosen = choose_for_size(base, 130_000, PLAIN).forecast
    assert chosen.size_bytes <= 130_000
    assert "Q8_0" in chosen.types.values()


def test_a_size_that_nothing_fits_is_told_with_the_smallest(base: GgufFile) -> None:
    with pytest.raises(UsageError, match=r"no type fits into 0.0 MB: the smallest is .* with 0.1"):
        choose_for_size(base, 1000, PLAIN)


def test_boards_get_types_that_they_are_fast_with(base: GgufFile) -> None:
    for board in BOARDS:
        chosen = choose_for_board(base, board, PLAIN).forecast
        matrices = {
            stored for name, stored in chosen.types.items() if len(base.tensors[name].shape) > 1
        }
        assert matrices <= FAST_ON_ARM
        assert chosen.kind == "Q8_0"  # so small a model is fast whatever it is


def test_unknown_boards_are_refused(base: GgufFile) -> None:
    with pytest.raises(UsageError, match="no such board: 'rpi9'; known are rpi4, rpi5"):
        choose_for_board(base, "rpi9", PLAIN)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> GgufFile:
    """Some matrices whose rows are whole blocks of every type."""
    path = tmp_path_factory.mktemp("large") / "large.gguf"
    metadata = {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.context_length": 64,
        "llama.embedding_length": 1024,
        "llama.attention.head_count": 8,
        "llama.attention.head_count_kv": 2,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    names = ["token_embd.weight", *(f"blk.0.{part}.weight" for part in ("attn_v", "ffn_down"))]
    zeros = np.zeros((256, 1024), np.float32)
    write_gguf(
        path, metadata, [PlannedTensor(one, zeros.shape, "F32", lambda: zeros) for one in names]
    )
    return read_gguf(path)


def test_a_slow_board_gets_fewer_bits(large: GgufFile, monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for bytes_per_s in (1e9, 12e6, 1.0):
        slow = BOARDS["rpi5"].__class__("a slow one", 1 << 30, bytes_per_s, "this test")
        monkeypatch.setitem(BOARDS, "slow", slow)
        choice = choose_for_board(large, "slow", PLAIN)
        kinds.append((choice.forecast.size_bytes, "none reaches" in choice.reason))
    sizes = [size for size, _ in kinds]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    assert [is_slow for _, is_slow in kinds] == [False, False, True]


def test_a_board_without_the_memory_is_told(
    large: GgufFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = BOARDS["rpi5"].__class__("a small one", 1 << 16, 1e9, "this test")
    monkeypatch.setitem(BOARDS, "small", small)
    with pytest.raises(UsageError, match=r"no type fits into the 0 MB that a a small one has"):
        choose_for_board(large, "small", PLAIN)


def test_fewer_bits_lose_more_and_importance_helps(large: GgufFile) -> None:
    def loss(kind: str, adjustments: Adjustments = PLAIN) -> float:
        return expected_loss(large, dict.fromkeys(large.tensors, kind), adjustments)

    assert loss("F16") < loss("Q8_0") < loss("Q4_K") < loss("Q2_K") < loss("IQ1_S")
    guided = Adjustments(importance=dict.fromkeys(large.tensors, np.ones(1024, np.float32)))
    assert loss("Q4_K", guided) < loss("Q4_K")


def test_the_facts_are_about_types_that_exist() -> None:
    assert LOSSES.keys() | FAST_ON_ARM | NEEDS_IMPORTANCE <= GGML_TYPE_IDS.keys()
    assert all(board.source.startswith("https://") for board in BOARDS.values())


def test_a_file_with_the_chosen_type_is_not_larger(base: GgufFile, tmp_path: Path) -> None:
    from converters.quantise_model import Wish, quantise_model

    notes: list[str] = []
    kind = quantise_model(
        base.path, tmp_path / "q.gguf", Wish(target_size="140kB"), on_note=notes.append
    )
    assert (tmp_path / "q.gguf").stat().st_size <= 140_000
    assert notes[0].startswith(f"{kind}: ")

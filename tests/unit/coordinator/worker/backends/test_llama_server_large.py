"""llama.cpp's real llama-server: its code, out of the wheel of xllamacpp, over HTTP on loopback."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from coordinator.worker.backends.llama_server_large import LlamaServerLarge
from coordinator.worker.backends.token_bytes import TokenBytes
from coordinator.worker.backends.vocabularies import require_same_texts
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import LargeModelError, VocabularyMismatchError
from tests.fakes.model_servers import llama_server, scripted_server
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.told_rows import assert_rows_true, assert_true, back_end, llama_rows
from tests.unit.coordinator.worker.backends.conftest import Connect

pytestmark = pytest.mark.llama

SIZE = 384
TEXT = list(range(30, 60))
KEY = "a-key"
LETTER = 67


@pytest.fixture(scope="module")
def url(tiny: TinyFederation) -> Iterator[str]:
    pytest.importorskip("xllamacpp", reason="no wheel with llama-server for this machine")
    with llama_server(tiny.large, KEY) as url:
        yield url


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n")
    return path


@pytest.fixture
def large(url: str, key_file: Path, connect: Connect) -> LlamaServerLarge:
    settings = back_end("llama-server", url, top=20, api_key_file=key_file)
    return LlamaServerLarge(connect(settings), settings, size=SIZE, letter=LETTER)


def test_a_draft_is_scored_in_one_call(large: LlamaServerLarge, tiny: TinyFederation) -> None:
    rows = large.rows(TEXT, 5, 0)
    assert_rows_true(rows, llama_rows(tiny.large, TEXT, 5))
    assert all(len(row.ids) == 20 for row in rows)


def test_conversations_go_on_and_back_in_their_slots(
    large: LlamaServerLarge, tiny: TinyFederation
) -> None:
    other = [7, *TEXT[3:9]]
    for sequence, text in [(0, TEXT), (1, other), (2, TEXT[:4]), (0, [*TEXT[:20], 9])]:
        assert_rows_true(large.rows(text, 2, sequence), llama_rows(tiny.large, text, 2))


def test_where_the_model_would_end_the_row_is_told_like_any_other(
    large: LlamaServerLarge, tiny: TinyFederation
) -> None:
    with LlamaModel(tiny.large, vocabulary_only=True) as model:
        end = [token for token in range(SIZE) if model.is_end(token)]
    texts = ([first, second] for first in range(3, SIZE) for second in range(3, 60))
    text = next(t for t in texts if llama_rows(tiny.large, t, 1)[0].argmax() in end)
    row = large.rows(text, 1, 0)[0]
    assert_true(row, llama_rows(tiny.large, text, 1)[0])
    assert row.ids[row.logits.argmax()] in end


def test_where_it_would_draw_a_part_of_a_character_the_row_is_told_too(
    large: LlamaServerLarge, tiny: TinyFederation
) -> None:
    with LlamaModel(tiny.large, vocabulary_only=True) as model:
        parts = {token for token in range(SIZE) if model.piece(token)[-1:] >= b"\x80"}
    texts = ([5, first, second] for first in range(3, SIZE) for second in range(3, 60))
    text = next(t for t in texts if int(llama_rows(tiny.large, t, 1)[0].argmax()) in parts)
    assert_true(large.rows(text, 1, 0)[0], llama_rows(tiny.large, text, 1)[0])


def test_its_tokens_are_ours(large: LlamaServerLarge, tiny: TinyFederation) -> None:
    with LlamaModel(tiny.small, vocabulary_only=True) as small:
        assert require_same_texts(large.texts, TokenBytes(small), server="it") > 100


def test_another_vocabulary_is_found(large: LlamaServerLarge, tiny: TinyFederation) -> None:
    with LlamaModel(tiny.small, vocabulary_only=True) as small:
        tokens = TokenBytes(small)
    tokens.pieces[300], tokens.pieces[301] = tokens.pieces[301], tokens.pieces[300]
    with pytest.raises(VocabularyMismatchError, match=r"token 300 is .* to the small model and"):
        require_same_texts(large.texts, tokens, server="it")


def test_a_token_that_it_does_not_have_is_its_refusal(large: LlamaServerLarge) -> None:
    with pytest.raises(LargeModelError, match=r"refuses /completion with 400: .*invalid tokens"):
        large.rows([5, 999], 1, 0)


def test_a_text_longer_than_its_context_is_its_refusal(large: LlamaServerLarge) -> None:
    with pytest.raises(LargeModelError, match=r"with 400: .*exceed"):
        large.rows([5] * 600, 1, 0)


def test_without_the_key_nothing_is_told(url: str, connect: Connect) -> None:
    settings = back_end("llama-server", url)
    with pytest.raises(LargeModelError, match=r"does not let us in: check worker\.large\.api_key"):
        LlamaServerLarge(connect(settings), settings, size=SIZE, letter=LETTER).rows(TEXT, 1, 0)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, "no completion_probabilities"),
        ([], "told 0 rows, not 1"),
        ({"completion_probabilities": []}, r"no completion_probabilities\.0"),
        ({"completion_probabilities": [{"top_logprobs": 7}]}, "is no list"),
        ({"completion_probabilities": [{"top_logprobs": [{"id": 5}]}]}, "no logprob"),
        ({"completion_probabilities": [{"top_logprobs": []}]}, "no token of ours"),
        ({"completion_probabilities": [{"top_logprobs": [{"id": 5, "logprob": "x"}]}]}, "'x' for"),
        ({"completion_probabilities": [{"top_logprobs": [{"id": "é", "logprob": -1}]}]}, "'é' for"),
        ({"completion_probabilities": [{"top_logprobs": [{"id": 5, "logprob": np.nan}]}]}, "nan"),
    ],
)
def test_nonsense_is_one_clear_error(answer: object, message: str, connect: Connect) -> None:
    with scripted_server((404, {}), (200, answer)) as script:
        settings = back_end("llama-server", script.url)
        large = LlamaServerLarge(connect(settings), settings, size=SIZE, letter=LETTER)
        with pytest.raises(LargeModelError, match=message):
            large.rows(TEXT, 1, 0)

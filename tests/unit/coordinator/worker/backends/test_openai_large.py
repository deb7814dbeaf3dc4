"""A real OpenAI-compatible server, llama-cpp-python's own, and answers in the shapes of others."""

from collections.abc import Callable, Iterator

import pytest

from coordinator.worker.backends.openai_large import OpenAiLarge
from coordinator.worker.backends.token_bytes import TokenBytes
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import LargeModelError
from tests.fakes.model_servers import ScriptedServer, llama_cpp_python_server, scripted_server
from tests.fakes.tiny_federation import TinyFederation
from tests.fakes.told_rows import assert_rows_true, assert_true, back_end, llama_rows
from tests.unit.coordinator.worker.backends.conftest import Connect

pytestmark = pytest.mark.llama

SIZE = 384
SENTENCE = "<|im_start|>user\nÖffne die Küche. The lamp turns on"


@pytest.fixture(scope="module")
def url(tiny: TinyFederation) -> Iterator[str]:
    with llama_cpp_python_server(tiny.large) as url:
        yield url


@pytest.fixture(scope="module")
def small(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small, vocabulary_only=True) as model:
        yield model


LargeAt = Callable[..., OpenAiLarge]


@pytest.fixture
def large_at(small: LlamaModel, connect: Connect) -> LargeAt:
    def make(url: str, **more: object) -> OpenAiLarge:
        settings = back_end("openai", url, model="large", **more)
        return OpenAiLarge(
            connect(settings),
            settings,
            TokenBytes(small),
            begin_token=small.begin_token,
            end_token=small.end_token,
        )

    return make


def test_rows_are_right_where_the_server_reads_the_same_tokens(
    url: str, small: LlamaModel, large_at: LargeAt, tiny: TinyFederation
) -> None:
    text = small.tokenize(SENTENCE, special=True)
    rows = large_at(url).rows(text, 5, 0)
    assert_rows_true(rows, llama_rows(tiny.large, text, 5))
    assert all(len(row.ids) >= 10 for row in rows)


def test_where_the_model_would_end_it_is_known_to_be_the_most_probable(
    url: str, small: LlamaModel, large_at: LargeAt, tiny: TinyFederation
) -> None:
    texts = ([first, second] for first in range(260, 384) for second in range(260, 384))
    end = small.end_token
    text = next(t for t in texts if llama_rows(tiny.large, t, 1)[0].argmax() == end)
    row = large_at(url).rows(text, 1, 0)[0]
    assert row.ids.tolist() == [end]
    assert_true(row, llama_rows(tiny.large, text, 1)[0])


def test_a_server_that_reads_other_tokens_is_told_of_once(
    url: str, small: LlamaModel, large_at: LargeAt, caplog: pytest.LogCaptureFixture
) -> None:
    large = large_at(url)
    text = [small.tokenize(letter, special=False)[0] for letter in "The lamp"]
    large.rows(text, 2, 0)
    assert caplog.text.count("reads other tokens than we send: 3 of our 7") == 1


def test_within_a_character_a_server_that_takes_text_cannot_be_asked(
    small: LlamaModel, large_at: LargeAt
) -> None:
    first = next(token for token in range(SIZE) if small.piece(token) == "Ö".encode()[:1])
    with pytest.raises(LargeModelError, match="this one ends within a character"):
        large_at("http://127.0.0.1:9").rows([300, first], 1, 0)


def logprobs(small: LlamaModel) -> dict[str, object]:
    """Two tokens' as most servers write them, and one that could be any of several."""
    return {small.text([300]): -1.0, "\N{REPLACEMENT CHARACTER}": -1.2, small.text([301]): -2.0}


def answer(**logprobs: object) -> dict[str, object]:
    return {"choices": [{"index": 0, "text": "x", "logprobs": logprobs, "finish_reason": "length"}]}


@pytest.fixture
def script() -> Iterator[ScriptedServer]:
    with scripted_server((200, {})) as one:
        yield one


def test_what_cannot_be_mapped_is_left_out_and_its_floor_with_it(
    script: ScriptedServer, small: LlamaModel, large_at: LargeAt
) -> None:
    script.answers = [(200, answer(top_logprobs=[logprobs(small)]))]
    (row,) = large_at(script.url, top=3).rows([300], 1, 0)
    assert row.ids.tolist() == [300, 301]
    assert row.floor == row.rest > -1.2


def test_tokens_may_come_as_objects_with_bytes_or_ids(
    script: ScriptedServer, small: LlamaModel, large_at: LargeAt
) -> None:
    told = [
        {"token": "?", "logprob": -1.0, "bytes": list(small.piece(300))},
        {"token": "?", "logprob": -1.5, "id": 301},
        {"token": "token_id:302", "logprob": -2.0, "bytes": None},
    ]
    script.answers = [(200, answer(content=[{"token": "?", "top_logprobs": told}]))]
    (row,) = large_at(script.url, top=3).rows([300], 1, 0)
    assert row.ids.tolist() == [300, 301, 302]
    assert row.floor == -2.0


def test_token_ids_go_out_where_the_server_takes_them(
    script: ScriptedServer, small: LlamaModel, large_at: LargeAt
) -> None:
    script.answers = [(200, answer(top_logprobs=[logprobs(small)]))]
    large_at(script.url, token_prompts=True).rows([300, 301], 1, 0)
    large_at(script.url).rows([300, 301], 1, 0)
    prompts = [body["prompt"] for _, body, _ in script.heard]
    assert prompts == [[300, 301], small.text([300, 301])]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({}, r"no choices\.0"),
        ({"choices": [{"logprobs": None}]}, "tells no log-probabilities"),
        (answer(top_logprobs=None), "no token of ours among 0"),
        (answer(top_logprobs=[{"Ω": -1.0}]), "no token of ours among 1"),
        (answer(content=[{"top_logprobs": [{"token": "a", "bytes": [999]}]}]), "for bytes"),
        ([1], r"no choices\.0"),
    ],
)
def test_nonsense_is_one_clear_error(
    answer: object, message: str, script: ScriptedServer, large_at: LargeAt
) -> None:
    script.answers = [(200, answer)]
    with pytest.raises(LargeModelError, match=message):
        large_at(script.url).rows([300], 1, 0)

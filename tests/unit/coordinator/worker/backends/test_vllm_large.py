"""vLLM, by recorded answers of a real one, 0.32.0 on a CPU; `record_vllm.py` here made them.

With `FEDPT_VLLM_URL` set, the rows come from the server there, which must have the same model.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest

from coordinator.worker.backends.model_server import ModelServer
from coordinator.worker.backends.vllm_large import VllmLarge
from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import Logits
from tests.fakes.model_servers import scripted_server
from tests.fakes.told_rows import assert_rows_true, back_end
from tests.unit.coordinator.worker.backends.record_vllm import (
    ANSWERS,
    ROWS,
    SIZE,
    TEXT,
    TOP,
    make_model,
)

URL = os.environ.get("FEDPT_VLLM_URL")
EXCHANGES: dict[str, dict[str, Any]] = json.loads(ANSWERS.read_text("utf-8"))["exchanges"]


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Logits:
    """Of the model that the server had, by transformers: `(T, V)`."""
    from transformers import AutoModelForCausalLM

    from tests.fakes.tiny_models import torch_logits

    folder = make_model(tmp_path_factory.mktemp("model") / "large")
    return torch_logits(AutoModelForCausalLM.from_pretrained(folder).eval(), TEXT)


@contextmanager
def vllm(
    name: str, change: Callable[[Any], None] | None = None, **more: Any
) -> Iterator[VllmLarge]:
    """A server that gives the recorded answer, and expects the recorded request; or a real one."""
    told = EXCHANGES[name]
    answer = json.loads(json.dumps(told["answer"]))
    if change is not None:
        change(answer)
    with scripted_server((told["status"], answer)) as script:
        is_real = URL is not None and change is None
        values = {"model": "large", "top": TOP, **more}
        settings = back_end("vllm", URL if URL and is_real else script.url, **values)
        with closing(ModelServer(settings)) as server:
            yield VllmLarge(server, settings, size=SIZE)
        if not is_real:
            assert [(path, body) for path, body, _ in script.heard] == [
                (told["path"], told["request"])
            ]


def test_a_draft_is_scored_in_one_call_of_many_prompts(truth: Logits) -> None:
    with vllm("prompts") as large:
        assert_rows_true(large.rows(TEXT, ROWS, 0), truth[-ROWS:])


def test_a_draft_is_scored_in_one_call_by_prompt_logprobs(truth: Logits) -> None:
    with vllm("prompt_logprobs", drafts="prompt_logprobs") as large:
        rows = large.rows(TEXT, ROWS, 0)
    assert_rows_true(rows, truth[-ROWS:])
    assert TEXT[-1] in rows[-2].ids  # the prompt's own token is told too, whatever its rank


def test_one_row_reads_no_prompt_again(truth: Logits) -> None:
    with vllm("one row", drafts="prompt_logprobs") as large:
        assert_rows_true(large.rows(TEXT, 1, 0), truth[-1:])


def test_its_tokenizer_gives_texts(truth: Logits) -> None:
    with vllm("detokenize") as large:
        assert large.texts([300, 301])


@pytest.mark.parametrize(
    ("name", "tokens", "more", "message"),
    [
        ("no such model", TEXT, {"model": "other"}, "404: The model `other` does not exist"),
        ("no such token", [5, 999], {}, "400: Token id 999 is out of vocabulary"),
        ("too many logprobs", TEXT, {"top": 65}, "400: .*greater than max allowed: 64"),
        ("too long", [5] * 256, {}, "400: "),
    ],
)
def test_a_refusal_is_told_in_its_own_words(
    name: str, tokens: list[int], more: dict[str, Any], message: str
) -> None:
    with vllm(name, **more) as large, pytest.raises(LargeModelError, match=message):
        large.rows(tokens, 1, 0)


def set_logprob(value: object) -> Callable[[Any], None]:
    def change(answer: Any) -> None:
        told = answer["choices"][0]["logprobs"]["top_logprobs"][0]
        told[next(iter(told))] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer["choices"].pop(), "told 4 rows, not 5"),
        (lambda answer: answer["choices"][1].pop("index"), "has no index"),
        (lambda answer: answer["choices"][1].update(logprobs=None), "no logprobs"),
        (set_logprob(None), "'None' for a number"),
        (set_logprob(np.nan), "told nan as a log-probability"),
        (set_logprob(3.5), "does it run with --logprobs-mode raw_logits"),
    ],
)
def test_nonsense_is_one_clear_error(change: Callable[[Any], None], message: str) -> None:
    with vllm("prompts", change) as large, pytest.raises(LargeModelError, match=message):
        large.rows(TEXT, ROWS, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: answer["choices"][0]["prompt_logprobs"].pop(), "29 rows of 30 tokens"),
        (lambda answer: answer["choices"][0].pop("prompt_logprobs"), "no prompt_logprobs"),
        (
            lambda answer: answer["choices"][0]["prompt_logprobs"].__setitem__(-1, None),
            "no log-probabilities of a prompt's position",
        ),
    ],
)
def test_nonsense_of_a_prompt_is_one_clear_error(
    change: Callable[[Any], None], message: str
) -> None:
    with (
        vllm("prompt_logprobs", change, drafts="prompt_logprobs") as large,
        pytest.raises(LargeModelError, match=message),
    ):
        large.rows(TEXT, ROWS, 0)


def test_old_servers_write_plain_numbers() -> None:
    def change(answer: Any) -> None:
        of_prompt = answer["choices"][0]["prompt_logprobs"]
        of_prompt[1:] = [
            {token: one["logprob"] for token, one in told.items()} for told in of_prompt[1:]
        ]

    with vllm("prompt_logprobs", lambda _: None, drafts="prompt_logprobs") as large:
        expected = large.rows(TEXT, ROWS, 0)
    with vllm("prompt_logprobs", change, drafts="prompt_logprobs") as large:
        for row, other in zip(large.rows(TEXT, ROWS, 0), expected, strict=True):
            np.testing.assert_allclose(row.logits, other.logits, atol=1e-3)

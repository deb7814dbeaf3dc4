"""The large model in vLLM (https://docs.vllm.ai), by `/v1/completions` with token ids.

A draft is scored in one call, in one of two ways. Either each wanted row is a prompt of its own, of
which vLLM reads only what its prefix cache does not hold. Or the whole text is one prompt with
`prompt_logprobs`: vLLM then reads all of it anew, and tells the rows of all positions, wanted or
not. Of 238 tokens with 8 rows of 20, measured with vLLM 0.32: 9 KB and 20 ms against 336 KB and
75 ms. So the former is the default, and the latter for servers without a prefix cache.
"""

from collections.abc import Sequence
from typing import Final

from coordinator.settings import BackEndSettings
from coordinator.worker.backends.answers_json import Json, field, listed, number, token_id
from coordinator.worker.backends.model_server import ModelServer
from coordinator.worker.backends.ports import beginnings
from coordinator.worker.backends.told_logprobs import Told, row_of
from fedpt.decoding.large_row import LargeRow
from fedpt.errors import LargeModelError

_PLAIN: Final = {
    "max_tokens": 1,
    # a server may have other defaults, taken from the model's generation_config.json
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "return_tokens_as_token_ids": True,
}


class VllmLarge:
    """A `coordinator.worker.backends.ports.Scorer`."""

    def __init__(self, server: ModelServer, settings: BackEndSettings, *, size: int) -> None:
        """Nothing is asked yet.

        Args:
            server: Where vLLM is.
            settings: What to ask for.
            size: Of the vocabulary.
        """
        self._server = server
        self._settings = settings
        self._size = size

    def rows(self, tokens: Sequence[int], wanted: int, _sequence: int) -> list[LargeRow]:
        """The rows after each of the last `wanted` tokens.

        Raises:
            LargeModelError: vLLM cannot be reached, refuses, or answers with nonsense.
        """
        if self._settings.drafts == "prompt_logprobs" and wanted > 1:
            return self._rows_of_prompt(list(tokens), wanted)
        choices = listed(self._complete(beginnings(tokens, wanted)), "choices")
        if len(choices) != wanted:
            raise LargeModelError(f"vLLM told {len(choices)} rows, not {wanted}")
        by_prompt = sorted(choices, key=lambda choice: number(field(choice, "index")))
        return [self._row(_generated(choice)) for choice in by_prompt]

    def texts(self, tokens: Sequence[int]) -> str:
        """What vLLM's tokenizer makes of tokens.

        Raises:
            LargeModelError: As `rows`.
        """
        body = {"model": self._settings.model, "tokens": list(tokens)}
        return str(field(self._server.post("/detokenize", body), "prompt"))

    def _rows_of_prompt(self, text: list[int], wanted: int) -> list[LargeRow]:
        answer = self._complete([text], prompt_logprobs=self._settings.top)
        choice = field(answer, "choices", 0)
        of_prompt = listed(choice, "prompt_logprobs")  # of each token, before it was read
        if len(of_prompt) != len(text):
            raise LargeModelError(f"vLLM told {len(of_prompt)} rows of {len(text)} tokens")
        told = [_of_position(position) for position in of_prompt[len(text) - wanted + 1 :]]
        return [self._row(one) for one in [*told, _generated(choice)]]

    def _row(self, told: list[Told]) -> LargeRow:
        return row_of(told, asked=self._settings.top, size=self._size)

    def _complete(self, prompts: list[list[int]], **more: int) -> Json:
        model, top = self._settings.model, self._settings.top
        body = {**_PLAIN, "model": model, "prompt": prompts, "logprobs": top, **more}
        return self._server.post("/v1/completions", body)


def _generated(choice: Json) -> list[Told]:
    """The row from which vLLM drew its one token; that token is told too, whatever its rank."""
    return _pairs(field(choice, "logprobs", "top_logprobs", 0))


def _of_position(told: Json) -> list[Told]:
    """Likewise in a prompt: `{"123": {"logprob": …, "rank": …}}`, in old versions the number."""
    if not isinstance(told, dict):
        raise LargeModelError("vLLM told no log-probabilities of a prompt's position")
    return _pairs(
        {key: one.get("logprob") if isinstance(one, dict) else one for key, one in told.items()}
    )


def _pairs(told: Json) -> list[Told]:
    if not isinstance(told, dict):
        raise LargeModelError("vLLM told no log-probabilities")
    return [(token_id(key), number(value)) for key, value in told.items()]

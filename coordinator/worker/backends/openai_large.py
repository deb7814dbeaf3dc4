"""The large model in any server with OpenAI's `/v1/completions` and `logprobs`: approximately.

One call a row, and at most 20 log-probabilities, mostly of tokens spelt as text. A token that
cannot be told from its spelling is left out (a piece of a character, mostly), and then nothing
bounds the others but what is left of one. The text goes out as text too, and is cut into tokens
anew: where that gives other tokens than ours, the row is that of another text; and where it ends
within a character, the server cannot be asked. Servers that take token ids (`token_prompts`) are
free of both.

No chat servers: they wrap a text into their template, and none goes on in the midst of an answer.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Final

from coordinator.settings import BackEndSettings
from coordinator.worker.backends.answers_json import Json, field, number, token_id
from coordinator.worker.backends.model_server import ModelServer
from coordinator.worker.backends.ports import beginnings
from coordinator.worker.backends.token_bytes import TokenBytes
from coordinator.worker.backends.told_logprobs import Told, end_row, row_of
from fedpt.decoding.large_row import LargeRow
from fedpt.errors import LargeModelError

_logger = logging.getLogger(__name__)

_PLAIN: Final = {"max_tokens": 1, "temperature": 0, "top_p": 1}


class OpenAiLarge:
    """A `coordinator.worker.backends.ports.Scorer`."""

    def __init__(
        self,
        server: ModelServer,
        settings: BackEndSettings,
        tokens: TokenBytes,
        *,
        begin_token: int | None,
        end_token: int,
    ) -> None:
        """Nothing is asked yet.

        Args:
            server: Where it is.
            settings: What to ask for.
            tokens: The vocabulary.
            begin_token: What the server puts before every text by itself, if it does.
            end_token: What it means when it stops at once.
        """
        self._server = server
        self._settings = settings
        self._tokens = tokens
        self._begin_token = begin_token
        self._end_token = end_token
        self._warned = False

    def rows(self, tokens: Sequence[int], wanted: int, _sequence: int) -> list[LargeRow]:
        """The rows after each of the last `wanted` tokens, one call each.

        Raises:
            LargeModelError: It cannot be reached, refuses, or answers with nonsense.
        """
        return [self._row(text) for text in beginnings(tokens, wanted)]

    def _row(self, text: list[int]) -> LargeRow:
        settings, size = self._settings, len(self._tokens.pieces)
        body = {**_PLAIN, "model": settings.model, "logprobs": settings.top}
        answer = self._server.post("/v1/completions", {**body, "prompt": self._prompt(text)})
        self._look_at_length(text, answer)
        choice = field(answer, "choices", 0)
        told = list(self._told(choice))
        if not told and field(choice, "finish_reason") == "stop":
            return end_row(self._end_token, size)
        return row_of(told, asked=settings.top, size=size)

    def _prompt(self, text: list[int]) -> list[int] | str:
        if self._settings.token_prompts:
            return text
        if text[0] == self._begin_token:
            text = text[1:]
        try:
            return self._tokens.bytes_of(text).decode()
        except UnicodeDecodeError:
            raise LargeModelError(
                "the model server takes text, and this one ends within a character"
            ) from None

    def _told(self, choice: Json) -> Iterator[Told]:
        """Both shapes that servers use: text -> logprob, and one object a token."""
        logprobs = field(choice, "logprobs")
        if not isinstance(logprobs, dict):
            raise LargeModelError("the model server tells no log-probabilities (logprobs)")
        first = next(iter(logprobs.get("top_logprobs") or []), None)
        if isinstance(first, dict):
            for spelling, value in first.items():
                yield self._token(spelling, None), number(value)
            return
        for one in field(logprobs, "content", 0, "top_logprobs") if "content" in logprobs else []:
            yield self._token(field(one, "token"), one), number(field(one, "logprob"))

    def _token(self, spelling: Json, told: Json) -> int | None:
        if isinstance(told, dict) and isinstance(told.get("id"), int):
            return token_id(told["id"])
        if isinstance(told, dict) and isinstance(told.get("bytes"), list):
            return self._tokens.token_of_bytes(_bytes(told["bytes"]))
        spelling = str(spelling)
        if spelling.startswith("token_id:"):
            return token_id(spelling)
        return self._tokens.token_of_text(spelling) if spelling else None

    def _look_at_length(self, text: list[int], answer: Json) -> None:
        usage = answer.get("usage") if isinstance(answer, dict) else None
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        if isinstance(count, int) and count != len(text) and not self._warned:
            self._warned = True
            _logger.warning(
                "the model server reads other tokens than we send: %s of our %s; its rows are those"
                " of another text now and then",
                count,
                len(text),
            )


def _bytes(told: list[Json]) -> bytes:
    try:
        return bytes(told)
    except (TypeError, ValueError):
        raise LargeModelError("the model server wrote something else for bytes") from None

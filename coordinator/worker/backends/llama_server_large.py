"""The large model in llama.cpp's llama-server, by `/completion` with token ids and `n_probs`.

It tells one row a prompt, so a draft of g tokens is g + 1 prompts in one call. All go to one slot,
in their order, and `cache_prompt` makes each of them a decode of one token.

It tells no probabilities where the token that it draws ends within a character (seen in a build of
October 2026). So it is made to draw a letter; the probabilities are those before any bias.
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
    "n_predict": 1,
    "temperature": -1.0,  # greedy; the probabilities are a plain softmax all the same
    "post_sampling_probs": False,
    "cache_prompt": True,
}
_SURELY: Final = 1000.0
"""Added to a logit, so that its token is drawn."""


class LlamaServerLarge:
    """A `coordinator.worker.backends.ports.Scorer`."""

    def __init__(
        self, server: ModelServer, settings: BackEndSettings, *, size: int, letter: int
    ) -> None:
        """Nothing is asked yet.

        Args:
            server: Where llama-server is.
            settings: What to ask for.
            size: Of the vocabulary.
            letter: A token that is a plain letter.
        """
        self._server = server
        self._bias = [[letter, _SURELY]]
        self._top = settings.top
        self._model = {"model": settings.model} if settings.model else {}
        self._size = size
        self._slots: int | None = None

    def rows(self, tokens: Sequence[int], wanted: int, sequence: int) -> list[LargeRow]:
        """The rows after each of the last `wanted` tokens.

        Raises:
            LargeModelError: It cannot be reached, refuses, or answers with nonsense.
        """
        prompts = beginnings(tokens, wanted)
        slot = sequence % self._slot_count()
        wanted_here = {"prompt": prompts, "n_probs": self._top, "id_slot": slot}
        body = {**_PLAIN, **self._model, **wanted_here, "logit_bias": self._bias}
        answer = self._server.post("/completion", body)
        answers = answer if isinstance(answer, list) else [answer]
        if len(answers) != wanted:
            raise LargeModelError(f"llama-server told {len(answers)} rows, not {wanted}")
        if wanted > 1:
            answers.sort(key=lambda one: number(field(one, "index")))
        return [self._row(one) for one in answers]

    def texts(self, tokens: Sequence[int]) -> str:
        """What its tokenizer makes of tokens.

        Raises:
            LargeModelError: As `rows`.
        """
        return str(field(self._server.post("/detokenize", {"tokens": list(tokens)}), "content"))

    def _row(self, answer: Json) -> LargeRow:
        told = listed(answer, "completion_probabilities", 0, "top_logprobs")
        pairs: list[Told] = [
            (token_id(field(one, "id")), number(field(one, "logprob"))) for one in told
        ]
        return row_of(pairs, asked=self._top, size=self._size)

    def _slot_count(self) -> int:
        """Asked for once; a server that does not tell has at least one."""
        if self._slots is None:
            try:
                self._slots = max(1, int(number(field(self._server.get("/props"), "total_slots"))))
            except LargeModelError:
                return 1
        return self._slots

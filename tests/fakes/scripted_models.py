"""Models of a few tokens whose logits follow from the text by arithmetic: for the decode loop."""

from collections.abc import Sequence

import numpy as np

from fedpt.decoding.constraint import Allowed
from fedpt.decoding.large_row import full_row
from fedpt.decoding.ports import RowsTold, RowsWanted
from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import Logits, TokenIds
from fedpt.token_texts import common_prefix
from fedpt.wire.logit_format import rows_from_bytes, rows_to_bytes

VOCABULARY = 40
END = VOCABULARY - 1


class ScriptedModel:
    """A row that depends on every token of the text, and on the model's seed."""

    def __init__(self, seed: int, *, end_after: int | None = None, spread: float = 2.0) -> None:
        self._seed = seed
        self._end_after = end_after
        self._spread = spread

    def row(self, tokens: Sequence[int]) -> Logits:
        """Logits after a text, `(V,)`."""
        rng = np.random.default_rng([self._seed, *tokens])
        row = rng.normal(scale=self._spread, size=VOCABULARY).astype(np.float32)
        is_over = self._end_after is not None and len(tokens) >= self._end_after
        row[END] = 100 if is_over else -100
        return row


class ScriptedText:
    """A `LocalText` of a scripted model; it knows how much it had to compute."""

    def __init__(self, model: ScriptedModel) -> None:
        self._model = model
        self.tokens: list[int] = []
        self.computed = 0
        self.calls = 0

    def begin(self, tokens: Sequence[int]) -> int:
        kept = common_prefix(self.tokens, tokens)
        self.rewind(kept)
        return kept

    def append(self, tokens: Sequence[int], wanted: int) -> Logits:
        assert 1 <= wanted <= len(tokens)
        self.calls += 1
        self.computed += len(tokens)
        self.tokens += tokens
        ends = range(len(self.tokens) - wanted + 1, len(self.tokens) + 1)
        return np.stack([self._model.row(self.tokens[:end]) for end in ends])

    def rewind(self, length: int) -> None:
        del self.tokens[length:]


class ScriptedLarge:
    """A `LargeModel` that answers some times and then fails, when asked or when fetched from.

    `few`: rows travel as bytes with so many of the largest logits, more of them when asked again.
    """

    def __init__(
        self, model: ScriptedModel, *, answers: int = 1000, fails_in: str = "fetch", few: int = 0
    ) -> None:
        self._model = model
        self._fails_in = fails_in
        self._few = few
        self._question: RowsWanted | None = None
        self.left = answers
        self.looks = 3
        """How often a reply is not there yet when it is looked for."""
        self._looked = 0
        self.asked: list[RowsWanted] = []
        self.comes_back = False

    def ask(self, question: RowsWanted) -> None:
        self.left -= 1
        self._looked = 0
        self._question = question
        self.asked.append(question)
        if self.left < 0 and self._fails_in == "ask":
            raise LargeModelError("no broker")

    def is_there(self) -> bool:
        self._looked += 1
        return self._looked > self.looks

    def fetch(self) -> RowsTold:
        question = self._question
        assert question is not None
        if self.left < 0:
            raise LargeModelError("silent")
        first = len(question.tokens) - question.rows + 1
        rows = np.stack(
            [
                self._model.row(question.tokens[:end])
                for end in range(first, len(question.tokens) + 1)
            ]
        )
        if not self._few:
            return RowsTold([full_row(row) for row in rows], 0.1, 0.01)
        k = {"few": self._few, "more": 3 * self._few, "all": 0}[question.detail]
        precision = "f16" if question.detail == "few" else "f32"
        content = rows_to_bytes(rows, k=k, candidates=question.candidates, precision=precision)
        told = rows_from_bytes(content, candidates=question.candidates, vocabulary_size=VOCABULARY)
        return RowsTold(told, 0.1, 0.01)

    def is_back(self, _tokens: Sequence[int]) -> bool:
        if self.comes_back:
            self.left = 1000
        return self.comes_back


class Only:
    """A constraint that leaves the same tokens everywhere."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed

    def allows(self, ids: TokenIds) -> Allowed:
        return np.asarray(self._allowed[ids])

    def allowed(self) -> Allowed:
        return self._allowed

    def after(self, token: int) -> "Only":
        assert self._allowed[token]
        return self

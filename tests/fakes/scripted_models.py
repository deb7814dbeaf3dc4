"""Models of a few tokens whose logits follow from the text by arithmetic: for the decode loop."""

from collections.abc import Sequence

import numpy as np

from fedpt.errors import LargeModelError
from fedpt.proxy_tuning import Logits

VOCABULARY = 11
END = 10


class ScriptedModel:
    """A `LogitSource`: a row that depends on every token of the text, and on the model's seed."""

    def __init__(self, seed: int, *, end_after: int | None = None) -> None:
        self._seed = seed
        self._end_after = end_after

    def logits_after(self, tokens: Sequence[int]) -> Logits:
        rng = np.random.default_rng([self._seed, *tokens])
        row = rng.normal(size=VOCABULARY).astype(np.float32)
        is_over = self._end_after is not None and len(tokens) >= self._end_after
        row[END] = 1000 if is_over else -1000
        return row


class ScriptedLarge:
    """A `LargeModel` that answers some times and then fails, when asked or when fetched from."""

    def __init__(self, seed: int, *, answers: int = 1000, fails_in: str = "fetch") -> None:
        self._model = ScriptedModel(seed)
        self._left = answers
        self._fails_in = fails_in
        self._asked: list[int] = []
        self.calls_after_failure = 0

    def ask(self, tokens: Sequence[int]) -> None:
        self.calls_after_failure += self._left < 0
        self._left -= 1
        self._asked = list(tokens)
        if self._left < 0 and self._fails_in == "ask":
            raise LargeModelError("no broker")

    def fetch(self) -> Logits:
        if self._left < 0:
            raise LargeModelError("silent")
        return self._model.logits_after(self._asked)

"""What the decode loop needs of the outside: models in this process, and the large one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from fedpt.decoding.large_row import LargeRow
from fedpt.proxy_tuning import Logits, TokenIds

Detail = Literal["few", "more", "all"]
"""How many logits a row shall have: a few dozen, some hundred, or every one of them, unrounded."""


class LocalText(Protocol):
    """One text in a model of this process; its cache goes back, never begins anew."""

    def begin(self, tokens: Sequence[int]) -> int:
        """Go back to the longest beginning that is shared with `tokens`; how long it is."""

    def append(self, tokens: Sequence[int], wanted: int) -> Logits:
        """Add tokens; the logits `(wanted, V)` after each of the last `wanted` of them."""

    def rewind(self, length: int) -> None:
        """Forget all from `length` on."""


@dataclass(frozen=True, slots=True, eq=False)
class RowsWanted:
    """A question to the large model: its rows after each of the last tokens of a text."""

    tokens: Sequence[int]
    """The whole text, drafts included."""
    rows: int
    candidates: Sequence[TokenIds]
    """For each row, ids whose logits are wanted whatever they are; ascending."""
    detail: Detail


@dataclass(frozen=True, slots=True, eq=False)
class RowsTold:
    """Its answer."""

    rows: Sequence[LargeRow]
    network_s: float
    """The round trip's time less the model's, s."""
    model_s: float
    """What the model took for the rows, s."""
    is_approximate: bool = False
    """Whether they may be off by more than they say."""


class LargeModel(Protocol):
    """The large model, perhaps far away: first ask, then fetch, and work in between."""

    def ask(self, question: RowsWanted) -> None:
        """Begin to compute.

        Raises:
            LargeModelError: It cannot be asked.
        """

    def is_there(self) -> bool:
        """Whether `fetch` would return, or raise, at once."""

    def fetch(self) -> RowsTold:
        """The rows that were asked for.

        Raises:
            LargeModelError: They did not come in time, or were refused.
        """

    def is_back(self, tokens: Sequence[int]) -> bool:
        """After a failure: whether it can be asked again. Asks now and then, never waits."""

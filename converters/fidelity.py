"""How close one model's next-token distributions are to another's, row by row. Pure numpy.

Where the rows come from is `converters.logit_sources`; `converters.verify` brings both together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from fedpt.proxy_tuning import Logits

_ROWS: Final = 32  # at a time in float64: 40 MB with the largest vocabularies


@dataclass(slots=True)
class Fidelity:
    """A growing comparison of a model with its reference; all sums are over positions."""

    positions: int = 0
    nll_sum: float = 0.0
    """Of the text's own next tokens by the model, nats; so the next."""
    reference_nll_sum: float = 0.0
    kl_sum: float = 0.0
    """KL(reference || model)."""
    agreements: int = 0
    largest_difference: float = 0.0
    """Of any two logits."""

    @property
    def perplexity(self) -> float:
        """Of the text under the model."""
        return float(np.exp(self.nll_sum / max(1, self.positions)))

    @property
    def reference_perplexity(self) -> float:
        """Of the text under the reference."""
        return float(np.exp(self.reference_nll_sum / max(1, self.positions)))

    @property
    def mean_kl(self) -> float:
        """Nats a token; never below 0 but for rounding, which is cut."""
        return max(0.0, self.kl_sum / max(1, self.positions))

    @property
    def top1_agreement(self) -> float:
        """The share of positions at which both find the same token most likely."""
        return self.agreements / max(1, self.positions)

    def add(self, reference: Logits, model: Logits, following: Sequence[int]) -> None:
        """Compare some positions.

        Args:
            reference: `(T, V)`.
            model: Likewise.
            following: The text's own token after each; a shorter list leaves the last ones out,
                for a text's last token has none.
        """
        count = len(following)
        for begin in range(0, count, _ROWS):
            rows = slice(begin, min(begin + _ROWS, count))
            self._add(
                reference[rows].astype(np.float64),
                model[rows].astype(np.float64),
                np.asarray(following[rows]),
            )

    def _add(
        self,
        reference: npt.NDArray[np.float64],
        model: npt.NDArray[np.float64],
        following: npt.NDArray[np.int_],
    ) -> None:
        self.positions += len(following)
        self.agreements += int((reference.argmax(-1) == model.argmax(-1)).sum())
        difference = float(np.abs(reference - model).max(initial=0.0))
        self.largest_difference = max(self.largest_difference, difference)
        theirs, ours = _log_probabilities(reference), _log_probabilities(model)
        every = np.arange(len(following))
        self.nll_sum -= float(ours[every, following].sum())
        self.reference_nll_sum -= float(theirs[every, following].sum())
        self.kl_sum += float((np.exp(theirs) * (theirs - ours)).sum())


def _log_probabilities(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = rows - rows.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return result

"""What may follow a text, such as a grammar."""

from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fedpt.proxy_tuning import TokenIds

Allowed: TypeAlias = npt.NDArray[np.bool_]
"""Which of some tokens, or of all `(V,)`, may come next."""


class Constraint(Protocol):
    """A constraint at one place in a text. A value: `after` makes another."""

    def allows(self, ids: TokenIds) -> Allowed:
        """Which of these tokens may come next. Cheap for a few."""

    def allowed(self) -> Allowed:
        """All tokens that may come next, `(V,)`; at least one. May cost as much as a token."""

    def after(self, token: int) -> "Constraint":
        """The constraint after one more token, which must be an allowed one."""

"""The loss on answers' tokens without a full logit tensor, however large the vocabulary.

The head runs over some of the vocabulary at a time. A running maximum and sum give the softmax, as
in flash attention (https://arxiv.org/abs/2205.14135), and the gradient of the hidden states comes
out of the same pass: the head is frozen, so nothing else is wanted of it.
"""

from typing import Any, Final, Protocol

import torch

_NUMBERS_AT_ONCE: Final = 2**20
"""Of logits, and of the head: 4 MB of float32 each; more is not faster."""
_LEAST_ROWS: Final = 512


class Head(Protocol):
    """The matrix `(V, H)` that makes logits of hidden states."""

    @property
    def shape(self) -> tuple[int, int]:
        """Vocabulary and hidden size."""

    def chunk(self, start: int, stop: int, dtype: torch.dtype) -> torch.Tensor:
        """Some rows."""

    def rows(self, indices: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The rows of some tokens."""


def answer_loss(hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
    """Sum of the cross-entropies in nats.

    Args:
        hidden: What the head would get at `N` positions, `(N, H)`.
        targets: The tokens that should come there, `(N,)`.
        head: Frozen.
    """
    loss: torch.Tensor = _AnswerLoss.apply(hidden, targets, head)  # type: ignore[no-untyped-call]  # torch has no type
    return loss


class _AnswerLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
        wants_gradient = ctx.needs_input_grad[0]
        state = _Running(hidden, targets, wants_gradient=wants_gradient)
        vocabulary = head.shape[0]
        step = max(_LEAST_ROWS, _NUMBERS_AT_ONCE // max(1, *hidden.shape))
        for start in range(0, vocabulary, step):
            stop = min(start + step, vocabulary)
            state.add(head.chunk(start, stop, hidden.dtype), start)
        if wants_gradient:
            ctx.save_for_backward(state.gradient(head.rows(targets, hidden.dtype)))
        return state.loss()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        (outer,) = gradients
        return (gradient * outer).to(gradient.dtype), None, None


class _Running:
    """Softmax over what has been seen of the vocabulary, in float32."""

    def __init__(
        self, hidden: torch.Tensor, targets: torch.Tensor, *, wants_gradient: bool
    ) -> None:
        count = len(hidden)
        self._hidden = hidden
        self._targets = targets
        self._largest = torch.full((count,), -torch.inf, device=hidden.device)
        self._sum = torch.zeros(count, device=hidden.device)
        self._wanted = torch.zeros(count, device=hidden.device)
        shape = hidden.shape if wants_gradient else (0, hidden.shape[1])
        self._mean_row = torch.zeros(shape, device=hidden.device)

    def add(self, rows: torch.Tensor, start: int) -> None:
        """Take in the tokens from `start` on."""
        logits = (self._hidden @ rows.t()).float()
        is_here = (self._targets >= start) & (self._targets < start + len(rows))
        places = (self._targets - start).clamp_(0, len(rows) - 1)
        found = logits.gather(1, places[:, None])[:, 0]
        self._wanted = torch.where(is_here, found, self._wanted)
        largest = torch.maximum(self._largest, logits.amax(1))
        shrink = torch.exp(self._largest - largest)
        shares = logits.sub_(largest[:, None]).exp_()
        self._sum = self._sum * shrink + shares.sum(1)
        if len(self._mean_row):
            self._mean_row.mul_(shrink[:, None])
            self._mean_row += shares.to(rows.dtype) @ rows
        self._largest = largest

    def loss(self) -> torch.Tensor:
        return (self._largest + self._sum.log() - self._wanted).sum()

    def gradient(self, wanted_rows: torch.Tensor) -> torch.Tensor:
        """Expected row minus wanted row."""
        mean = self._mean_row.div_(self._sum[:, None])
        return mean.sub_(wanted_rows).to(self._hidden.dtype)

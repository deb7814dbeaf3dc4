"""How an answer is steered: by combining logits here, or by the tokens that a worker sends.

A personal adapter never leaves the board, so with one the board combines logits itself. With the
federation's adapter, which the worker has too, the worker does all of it and sends tokens: a few
bytes each. Both give the same answer.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from edge_runtime.question import Steps, Where
from fedpt.decoding.answer import Steerer, Token
from fedpt.decoding.draft_and_verify import Tally
from fedpt.decoding.drafting import Drafter, Rules
from fedpt.decoding.ports import LargeModel
from fedpt.errors import NotServedError
from fedpt.proxy_tuning import Coefficients


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """What a worker must know to steer an answer by itself."""

    adapter: str
    coefficients: Coefficients
    rules: Rules


class WorkerSteerer(Steerer, Protocol):
    """A `Steerer` whose work is done elsewhere, and that knows what it cost."""

    @property
    def tally(self) -> Tally:
        """Its round trips."""


class WorkerFirst:
    """Lets a worker steer; where it does not serve this answer, the board combines logits itself.

    A worker may have another adapter for a moment, when a round has just ended.
    """

    def __init__(self, worker: WorkerSteerer, make_own: Callable[[], WorkerSteerer]) -> None:
        self._worker = worker
        self._make_own = make_own
        self._own: WorkerSteerer | None = None

    @property
    def where(self) -> Where:
        """Where the work is done now."""
        return "tokens" if self._own is None else "logits"

    @property
    def tally(self) -> Tally:
        """Of the one that steers now."""
        return (self._own or self._worker).tally

    def next_tokens(self, drafter: Drafter, most: int) -> Iterator[Token]:
        """The next tokens, by the worker as long as it serves.

        Raises:
            LargeModelError: Neither can.
        """
        if self._own is None:
            try:
                for token in self._worker.next_tokens(drafter, most):
                    most -= 1
                    yield token
            except NotServedError:
                self._own = self._make_own()
            else:
                return
        if most:
            yield from self._own.next_tokens(drafter, most)

    def is_back(self, text: list[int]) -> bool:
        """After a failure: whether steering can go on. Never waits."""
        return (self._own or self._worker).is_back(text)


@dataclass(slots=True)
class Traffic:
    """What has gone over the network, MQTT's own bytes included."""

    bytes_up: int = 0
    bytes_down: int = 0
    tokens_sent: int = 0

    def since(self, before: "Traffic") -> "Traffic":
        """The difference."""
        return Traffic(
            self.bytes_up - before.bytes_up,
            self.bytes_down - before.bytes_down,
            self.tokens_sent - before.tokens_sent,
        )

    def copy(self) -> "Traffic":
        """As it is now."""
        return Traffic(self.bytes_up, self.bytes_down, self.tokens_sent)


@dataclass(frozen=True, slots=True)
class LargeAccess:
    """How this process reaches the large model; lives as long as the assistant."""

    large: LargeModel
    traffic: Traffic
    at_worker: Callable[[AnswerPlan], WorkerSteerer] | None = None
    """None: there is no worker that could answer by itself."""


def where_to_steer(
    wanted: Literal["auto", "logits"],
    *,
    has_worker: bool,
    is_personal: bool,
    needs_logits: bool,
    is_constrained: bool,
) -> Where:
    """Where the work is done.

    Args:
        wanted: The device's setting.
        has_worker: Whether a worker can be asked for tokens at all.
        is_personal: Whether the adapter is this board's own, or none that a worker has.
        needs_logits: Whether the asker wants log-probabilities.
        is_constrained: Whether a grammar holds: workers take none, for one can be made that never
            comes to an end.
    """
    must_be_here = is_personal or needs_logits or is_constrained
    return "logits" if wanted == "logits" or not has_worker or must_be_here else "tokens"


def steps_of(where: Where, tally: Tally, traffic: Traffic) -> Steps:
    """What an answer's steering took."""
    network_s = sorted(tally.network_s)
    return Steps(
        where=where,
        round_trips=tally.round_trips,
        bytes_up=traffic.bytes_up,
        bytes_down=traffic.bytes_down,
        tokens_sent=traffic.tokens_sent,
        drafts=tally.rows,
        drafts_right=tally.drafts_right,
        certain_at_once=tally.certain_at_once,
        largest_doubt=tally.largest_doubt,
        is_approximate=tally.is_approximate,
        waited_s=tally.waited_s,
        network_s=network_s[len(network_s) // 2] if network_s else 0.0,
    )

"""Continuous batching: what many conversations want of a model goes through it together.

Jobs come from any thread; one thread owns the models and calls `step`. Each step takes a piece of
as many jobs as there are, the least served device's first, so that a long prompt of one device does
not hold up the single tokens of others.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import numpy as np

from coordinator.worker.gathering import Gathering
from fedpt.decoding.large_row import LargeRow
from fedpt.drivers.llama_runs import Run
from fedpt.errors import FedptError, LargeModelError, SessionLostError
from fedpt.ids import DeviceId
from fedpt.proxy_tuning import Logits

Told: TypeAlias = Logits | Sequence[LargeRow]
"""Rows `(wanted, V)`; or, of a black box that does not give whole rows, what it gives of them."""

_STEP_TOKENS: Final = 512
_LEAST_PIECE: Final = 32
"""Of a long prompt, so many tokens go into a step at least: smaller pieces waste the batch."""


class Context(Protocol):
    """A model with a cache of several texts: `fedpt.drivers.llama.LlamaContext` is one."""

    def evaluate(self, runs: Sequence[Run]) -> Sequence[Told | FedptError]:
        """Add tokens to their sequences; for each run the rows that were wanted, or its failure.

        Raises:
            FedptError: All runs have failed, for the fault of at least one of them.
        """

    def forget(self, sequence: int, position: int = 0) -> None:
        """Drop a sequence's tokens from `position` on."""


@dataclass(slots=True, eq=False)
class Job:
    """Tokens for one text of one model, and who waits for the rows after the last of them."""

    context: str
    device: DeviceId
    slot: int
    position: int
    """What the slot holds from here on is dropped first."""
    tokens: Sequence[int]
    """At least one."""
    wanted: int
    on_done: Callable[[Told | FedptError], None]
    """Called on the thread that steps, or on that which submits to a closed batcher. Must not
    raise."""
    done: int = 0
    rows: list[Told] = field(default_factory=list)


class Batcher:
    """Owns the models of a process."""

    def __init__(
        self, contexts: Mapping[str, Context], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._contexts = dict(contexts)
        self._clock = clock
        self._gathering = Gathering()
        self._jobs: list[Job] = []
        self._served: dict[DeviceId, int] = {}
        """Of the devices that have jobs here: tokens since they came."""
        self._held: dict[tuple[str, int], int] = defaultdict(int)
        """How many tokens a context holds of a slot's text."""
        self._is_closed = False
        self._changed = threading.Condition()

    def submit(self, job: Job) -> None:
        """Queue a job; from any thread."""
        with self._changed:
            if not self._is_closed:
                if job.device not in self._served:  # no credit for having been away
                    self._served[job.device] = min(self._served.values(), default=0)
                self._jobs.append(job)
                self._changed.notify()
                return
        job.on_done(_stopped())

    def wake(self) -> None:
        """End a `wait`; from any thread."""
        with self._changed:
            self._changed.notify()

    def forget(self, slot: int, position: int = 0) -> None:
        """A slot's texts end here; jobs that wait for it fail. On the thread that steps."""
        for name, context in self._contexts.items():
            self._cut(name, context, slot, position)
        lost = SessionLostError("the conversation was put out meanwhile")
        self._finish([job for job in self._waiting() if job.slot == slot], lost)

    def wait(self, timeout_s: float, *, unless: Callable[[], bool]) -> None:
        """Until there is a job, or `unless` is true, which is looked at again at each `wake`."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._jobs) or unless(), timeout_s)

    def gather(self, *, unless: Callable[[], bool]) -> bool:
        """Wait a moment for more jobs, where that pays; whether to look for them before a step."""
        with self._changed:
            jobs = len(self._jobs)
            rest_s = self._gathering.rest_s(jobs, self._clock()) if jobs else 0.0
            if rest_s:
                self._changed.wait_for(lambda: len(self._jobs) != jobs or unless(), rest_s)
        return rest_s > 0

    def replace(self, name: str, context: Context) -> None:
        """Use another context from now on; jobs for the old one fail. On the thread that steps."""
        self._contexts[name] = context
        for key in [key for key in self._held if key[0] == name]:
            del self._held[key]
        replaced = LargeModelError("the model was replaced meanwhile")
        self._finish([job for job in self._waiting() if job.context == name], replaced)

    def close(self) -> None:
        """Fail all jobs, and those still to come. On the thread that steps."""
        with self._changed:
            self._is_closed = True
        self._finish(self._waiting(), _stopped())

    def step(self) -> int:
        """Put one piece of each of some jobs through their models; how many tokens that were."""
        began = self._clock()
        runs = [run for name in list(self._contexts) for run in self._step_one(name)]
        if runs:
            self._gathering.stepped(len(runs), began, self._clock())
        return sum(len(run.tokens) for run in runs)

    def _step_one(self, name: str) -> list[Run]:
        pieces = self._pieces(name)
        for (job, run), told in zip(pieces, self._evaluated(name, pieces), strict=True):
            if isinstance(told, FedptError):
                self._cut(name, self._contexts[name], job.slot, 0)
                self._finish([job], told)
                continue
            self._held[name, job.slot] = run.position + len(run.tokens)
            self._count(job, len(run.tokens))
            if run.wanted:
                job.rows.append(told)
        self._finish([job for job, _ in pieces if job.done == len(job.tokens)], None)
        return [run for _, run in pieces]

    def _pieces(self, name: str) -> list[tuple[Job, Run]]:
        """What goes through a model together."""
        with self._changed:
            jobs = [job for job in self._jobs if job.context == name]
            jobs.sort(key=lambda job: self._served[job.device])
        pieces, room, slots = list[tuple[Job, Run]](), _STEP_TOKENS, set[int]()
        share = max(_LEAST_PIECE, _STEP_TOKENS // max(1, len(jobs)))
        for job in jobs:
            size = min(share, len(job.tokens) - job.done, room)
            if size and job.slot not in slots:  # one text goes through in order
                slots.add(job.slot)
                if (run := self._begun(name, job, size)) is not None:
                    pieces.append((job, run))
                    room -= size
        return pieces

    def _begun(self, name: str, job: Job, size: int) -> Run | None:
        """A job's next piece; None: the job has failed, for what it builds upon is not there."""
        position = job.position + job.done
        if job.done == 0 and position <= self._held[name, job.slot]:
            self._cut(name, self._contexts[name], job.slot, position)
        if position > (held := self._held[name, job.slot]):
            lost = SessionLostError(f"{held} tokens are here, not {position}")
            self._finish([job], lost)
            return None
        first_wanted = len(job.tokens) - job.wanted
        wanted = max(0, job.done + size - max(job.done, first_wanted))
        return Run(job.slot, position, job.tokens[job.done : job.done + size], wanted)

    def _evaluated(
        self, name: str, pieces: Sequence[tuple[Job, Run]]
    ) -> Sequence[Told | FedptError]:
        """What each gets; a failure of all together is looked for one by one."""
        context = self._contexts[name]
        if not pieces:
            return []
        try:
            return context.evaluate([run for _, run in pieces])
        except FedptError as error:
            if len(pieces) == 1:
                return [error]
        return [self._evaluated_alone(context, run) for _, run in pieces]

    def _evaluated_alone(self, context: Context, run: Run) -> Told | FedptError:
        try:
            context.forget(run.sequence, run.position)  # a part may have got in
            return context.evaluate([run])[0]
        except FedptError as error:
            return error

    def _cut(self, name: str, context: Context, slot: int, position: int) -> None:
        try:
            context.forget(slot, position)
        except FedptError:  # this architecture cannot drop a part
            position = 0
            context.forget(slot)
        self._held[name, slot] = min(self._held[name, slot], position)

    def _count(self, job: Job, tokens: int) -> None:
        job.done += tokens
        with self._changed:
            if job.device in self._served:
                self._served[job.device] += tokens

    def _waiting(self) -> list[Job]:
        with self._changed:
            return list(self._jobs)

    def _finish(self, jobs: Sequence[Job], error: FedptError | None) -> None:
        with self._changed:
            jobs = [job for job in jobs if job in self._jobs]  # others of its text may be gone too
            self._jobs = [job for job in self._jobs if job not in jobs]
            left = {job.device for job in self._jobs}
            self._served = {who: count for who, count in self._served.items() if who in left}
        for job in jobs:
            job.on_done(_joined(job.rows) if error is None else error)


def _joined(parts: list[Told]) -> Told:
    if len(parts) == 1:
        return parts[0]
    if parts and all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate([part for part in parts if isinstance(part, np.ndarray)])
    return [row for part in parts if not isinstance(part, np.ndarray) for row in part]


def _stopped() -> SessionLostError:
    """Its device asks another worker then."""
    return SessionLostError("the worker is being stopped")

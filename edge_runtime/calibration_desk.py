"""Calibration in the background: a thread that gives way to answers, and the file of what it found.

The daemon's thread says what the assistant answers with (`step`); what is measured for anything
else is void. The measuring itself is in `calibration`.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from edge_runtime.assistant import Assistant
from edge_runtime.calibration import (
    Calibration,
    CalibrationKey,
    Measured,
    chosen_examples,
    is_valid,
    measure,
    why_not,
)
from edge_runtime.data.preparing import prepare
from edge_runtime.data.training_set import read_training_set
from edge_runtime.settings import DeviceSettings
from fedpt.chat import EncodedExample
from fedpt.decoding.ports import LargeModel
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import FedptError, TooMuchError
from fedpt.files import write_bytes
from fedpt.proxy_tuning import Coefficients
from fedpt.struct_file import read_struct
from fedpt.wire.messages import CalibrationStatus, SteeringCoefficients

_logger = logging.getLogger(__name__)

FILE_NAME: Final = "calibration.json"
_MOST_LOGITS: Final = 256
"""Of the large model's largest, and as many candidates: 96 % of its mass on plain text, more on
answers. Some 1.4 KB a position, 100 times less than whole rows, and the same choice."""
_LONGEST_EXAMPLE: Final = 512
"""Tokens; it must fit into a worker's context beside others' conversations."""
_BUSY_S: Final = 0.5
_LEAST_REST_S: Final = 0.02
_FIRST_PAUSE_S: Final = 30.0
_LONGEST_PAUSE_S: Final = 3600.0
_STOP_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class _Over:
    """A thread has ended."""

    calibration: Calibration | None
    fault: str


class CalibrationDesk:
    """One board's calibration; `status` may be asked from any thread."""

    def __init__(
        self,
        settings: DeviceSettings,
        model: LlamaModel,
        assistant: Assistant,
        *,
        ask_large: Callable[[int], LargeModel],
    ) -> None:
        """Read what was found in an earlier life; nothing is measured yet.

        Args:
            settings: The device's.
            model: The small one.
            assistant: Gives rows, and is told the coefficients.
            ask_large: Makes a way to the large model that tells so many logits a row.
        """
        self._settings = settings
        self._model = model
        self._base = model.weights
        self._vocabulary = model.vocabulary.sha256  # a hash of all tokens: not at every step
        self._assistant = assistant
        self._ask_large = ask_large
        self._path = settings.state_dir / "adapters" / FILE_NAME
        self._found = read_struct(self._path, Calibration, lost="calibrated again")
        self._fault = ""
        self._key: CalibrationKey | None = None
        self._overs: queue.SimpleQueue[_Over] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._pause_s = _FIRST_PAUSE_S
        self._not_before = float("-inf")

    def step(self, large: str, *, may_start: bool) -> None:
        """Use what is valid for what the assistant answers with now; measure what is missing.

        Args:
            large: The large model's name; empty while the coordinator was not heard of.
            may_start: Whether the board has nothing better to do.
        """
        self._hear()
        key = CalibrationKey(
            adapter=self._assistant.adapter,
            base=self._base,
            vocabulary=self._vocabulary,
            large=large,
        )
        if key != self._key:
            self._key, self._fault = key, ""
            self._pause_s, self._not_before = _FIRST_PAUSE_S, float("-inf")
            self._stopping.set()  # what runs is for another adapter, or large model
        found = self._valid()
        self._assistant.calibrated = (key.adapter, found.coefficients) if found else None
        is_due = found is None and not self._forbidden() and time.monotonic() >= self._not_before
        if is_due and may_start and self._thread is None and key.large:
            self._start(key, self._assistant.coefficients)

    def stop(self) -> bool:
        """End what runs; the next life begins it anew. Whether the model is used no more."""
        self._stopping.set()
        if self._thread is None:
            return True
        self._thread.join(_STOP_S)
        return not self._thread.is_alive()

    @property
    def status(self) -> CalibrationStatus | None:
        """What was found, or why nothing was; None before the first look."""
        if self._key is None:
            return None
        found = self._valid()
        if found is None:
            return CalibrationStatus(why_not=self._why_not())
        alpha, beta, gamma = found.coefficients
        return CalibrationStatus(
            coefficients=SteeringCoefficients(alpha=alpha, beta=beta, gamma=gamma),
            nll=found.nll,
            nll_expert=found.nll_expert,
            nll_plain=found.nll_plain,
            nll_announced=found.nll_announced,
            positions=found.positions,
            made_unix_s=found.made_unix_s,
        )

    def _valid(self) -> Calibration | None:
        """What may be used: not what was measured before `share_questions` was taken back."""
        found, key = self._found, self._key
        if found is None or key is None or self._forbidden() or not is_valid(found, key):
            return None
        return found

    def _forbidden(self) -> str:
        assistant = self._settings.assistant
        return why_not(
            is_wanted=assistant.calibrate,
            permission=assistant.share_questions,
            has_data=self._settings.data is not None,
            adapter=self._key.adapter if self._key else "",
        )

    def _why_not(self) -> str:
        if forbidden := self._forbidden():
            return forbidden
        if self._thread is not None:
            return "it is being measured"
        if self._key is not None and not self._key.large:
            return "the coordinator was not heard of yet"
        return self._fault or "it waits until the board has nothing else to do"

    def _start(self, key: CalibrationKey, announced: Coefficients) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(key, announced, self._stopping), name="calibration", daemon=True
        )
        self._thread.start()
        _logger.info("calibration started", extra={"adapter": key.adapter[:12]})

    def _hear(self) -> None:
        """A thread that has ended: keep what it found."""
        try:
            over = self._overs.get_nowait()
        except queue.Empty:
            return
        self._thread = None
        self._fault = over.fault
        if over.calibration is None:
            self._not_before = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            return
        self._found = over.calibration
        try:
            write_bytes(self._path, msgspec.json.encode(over.calibration))
        except FedptError as error:
            _logger.warning("the calibration is lost with the next restart: %s", error)

    def _run(self, key: CalibrationKey, announced: Coefficients, stopping: threading.Event) -> None:
        """On the thread."""
        calibration, fault = None, ""
        try:
            calibration = self._measured(key, announced, stopping)
        except FedptError as error:
            fault = str(error)
            _logger.info("not calibrated: %s", error)
        except Exception as error:  # the status tells it, and the daemon goes on
            fault = f"calibration failed with {type(error).__name__}; see the log"
            _logger.exception("calibration failed")
        if calibration is not None:
            facts = {
                "coefficients": tuple(calibration.coefficients),
                "nll": round(calibration.nll, 4),
                "expert": round(calibration.nll_expert, 4),
                "positions": calibration.positions,
            }
            _logger.info("calibrated", extra=facts)
        self._overs.put(_Over(calibration, fault))

    def _measured(
        self, key: CalibrationKey, announced: Coefficients, stopping: threading.Event
    ) -> Calibration | None:
        """None: it was told to stop, or is for nobody any more.

        Raises:
            FedptError: The large model does not answer, there are too few examples, …
        """
        settings = self._settings.assistant
        examples = self._examples()
        measured_with = partial(self._measured_with, examples, key, announced, stopping=stopping)
        try:
            return measured_with(logits=max(_MOST_LOGITS, settings.largest_logits))
        except TooMuchError:  # a worker that gives as much as answers need, and no more
            return measured_with(logits=settings.largest_logits)

    def _examples(self) -> list[EncodedExample]:
        data = self._settings.data
        assert data is not None  # `why_not` has said so
        room = min(_LONGEST_EXAMPLE, self._settings.assistant.context_tokens)
        return chosen_examples(prepare(self._model, read_training_set(data), room=room).held_out)

    def _measured_with(
        self,
        examples: Sequence[EncodedExample],
        key: CalibrationKey,
        announced: Coefficients,
        *,
        logits: int,
        stopping: threading.Event,
    ) -> Calibration | None:
        measured = Measured(announced)
        large = self._ask_large(logits)
        began = time.monotonic()
        for rows in measure(examples, self._assistant, large, candidates=logits, into=measured):
            if rows is not None and rows.adapter != key.adapter:
                return None
            # as long as it took: who waits for the assistant gets it, and half the processor
            rest_s = _BUSY_S if rows is None else time.monotonic() - began
            if stopping.wait(max(_LEAST_REST_S, rest_s)):
                return None
            began = time.monotonic()
        return measured.calibration(key, time.time())

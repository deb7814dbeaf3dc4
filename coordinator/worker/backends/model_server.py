"""JSON over HTTP with a model server: patience, errors in one line each, a key kept secret."""

import logging
import random
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from coordinator.settings import BackEndSettings
from fedpt.errors import BusyError, LargeModelError, SettingsError

_logger = logging.getLogger(__name__)

_CONNECT_S: Final = 3.0
_FIRST_TIMEOUT_S: Final = 60.0
"""A server may still load its model, or compile at its first request."""
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_MOST_REASON: Final = 200
_PASSING: Final = frozenset({429, 502, 503, 504})
"""Too many requests, or a server that is just starting or restarting: asked again."""
_BUSY: Final = frozenset({429, 503})

Json = dict[str, Any]  # Any: whatever a foreign server writes; each use checks it


class ModelServer:
    """One server. Thread-safe."""

    def __init__(
        self, settings: BackEndSettings, *, first_timeout_s: float = _FIRST_TIMEOUT_S
    ) -> None:
        """Connect with the first request.

        Args:
            settings: Where it is, and how patient we are.
            first_timeout_s: Patience until its first answer ever, if longer.

        Raises:
            SettingsError: The key's file cannot be read.
        """
        assert settings.url is not None  # the settings were validated
        self.url = settings.url.rstrip("/").removesuffix("/v1")
        self._usual_timeout_s = settings.timeout_s
        self._timeout_s = max(settings.timeout_s, first_timeout_s)
        self._client = httpx.Client(
            base_url=self.url, headers=_headers(settings.api_key_file), follow_redirects=False
        )
        self._failed = threading.Event()
        """The last request found nobody: the next one does not wait for better times."""

    def post(self, path: str, body: Mapping[str, object]) -> Any:  # Any: as `Json`
        """Send JSON and read JSON, again and again while there is time and hope.

        Raises:
            LargeModelError: In one line, what is wrong.
        """
        return self._ask("POST", path, body)

    def get(self, path: str) -> Any:  # Any: as `Json`
        """Read JSON.

        Raises:
            LargeModelError: As `post`.
        """
        return self._ask("GET", path, None)

    def close(self) -> None:
        """End its connections."""
        self._client.close()

    def _ask(self, method: str, path: str, body: object) -> Any:  # Any: as `Json`
        end = time.monotonic() + self._timeout_s
        pauses = _pauses()
        while True:
            try:
                told = self._once(method, path, body, end - time.monotonic())
            except _PassingError as passing:
                pause_s = passing.wait_s if passing.wait_s is not None else next(pauses)
                if self._failed.is_set() or time.monotonic() + pause_s >= end:
                    self._failed.set()
                    raise passing.error from passing.__cause__
                time.sleep(pause_s)
            else:
                self._failed.clear()
                self._timeout_s = self._usual_timeout_s
                return told

    def _once(self, method: str, path: str, body: object, left_s: float) -> Any:  # Any: as `Json`
        timeout = httpx.Timeout(max(0.01, left_s), connect=min(_CONNECT_S, max(0.01, left_s)))
        try:
            answer = self._client.request(method, path, json=body, timeout=timeout)
        except httpx.ReadTimeout as error:
            raise LargeModelError(
                f"the model server {self.url} took longer than {self._timeout_s:g} s"
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            what = f"the model server {self.url} cannot be reached: {reason}"
            raise _PassingError(LargeModelError(what), None) from error
        if answer.status_code in _PASSING:
            raise _PassingError(self._error(path, answer), _wanted_pause_s(answer))
        if not answer.is_success:
            raise self._error(path, answer)
        try:
            return answer.json()
        except (ValueError, RecursionError) as error:
            raise LargeModelError(
                f"the model server {self.url} answers {path} with something that is no JSON"
            ) from error

    def _error(self, path: str, answer: httpx.Response) -> LargeModelError:
        status, reason = answer.status_code, _reason(answer)
        if status in (401, 403):
            advice = "check worker.large.api_key_file"
            return LargeModelError(f"the model server {self.url} does not let us in: {advice}")
        kind = BusyError if status in _BUSY else LargeModelError
        return kind(f"the model server {self.url} refuses {path} with {status}: {reason}")


class _PassingError(Exception):
    """What may be over soon; `error` is what it is otherwise."""

    def __init__(self, error: LargeModelError, wait_s: float | None) -> None:
        super().__init__(str(error))
        self.error = error
        self.wait_s = wait_s


def _pauses() -> Iterator[float]:
    """Ever longer, and by chance, so that many who wait do not come together."""
    pause_s = _FIRST_PAUSE_S
    while True:
        yield pause_s * random.uniform(0.5, 1.0)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _wanted_pause_s(answer: httpx.Response) -> float | None:
    try:
        return max(0.0, float(answer.headers["retry-after"]))
    except (KeyError, ValueError):  # none, or a date
        return None


def _reason(answer: httpx.Response) -> str:
    """The server's own words, from whichever place it puts them into; one line."""
    try:
        told = answer.json()
        error = told.get("error", told.get("detail", told.get("message", told)))
        text = error.get("message", error) if isinstance(error, dict) else error
    except (ValueError, AttributeError, RecursionError):
        text = answer.text
    return " ".join(str(text).split())[:_MOST_REASON] or answer.reason_phrase


def _headers(key_file: Path | None) -> dict[str, str]:
    if key_file is None:
        return {}
    try:
        key = key_file.read_text().strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"cannot read worker.large.api_key_file: {error}") from error
    if not key.isascii() or not key.isprintable() or not key:
        raise SettingsError(f"{key_file} holds no key: one line of plain characters was expected")
    return {"Authorization": f"Bearer {key}"}

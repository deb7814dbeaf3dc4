"""Who may come in over TCP: a token, and protection from other sites' pages in the same browser.

A browser lets any page on the internet send requests to a loopback address. So a request that says
it comes from another site is refused; and where there is no token, so is one that calls this
device by a name that is not its own (a page whose name was made to point here).
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from edge_runtime.api.api_errors import ApiError
from edge_runtime.api.error_replies import error_reply
from fedpt.errors import SettingsError

_LEAST_TOKEN: Final = 16
"""Characters; shorter ones can be guessed over a network."""

_OPEN_PATHS: Final = frozenset({"/", "/health"})
"""The page holds nothing secret, and health checks carry no tokens."""

_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class DoorRules:
    """Who may come in."""

    token: str = ""
    """Empty: whoever can connect; for loopback addresses only."""
    names: frozenset[str] = _LOOPBACK_NAMES
    """Without a token: names by which this device may be called."""
    origins: frozenset[str] = frozenset()
    """Other sites whose pages may use this API; * for all."""


def require_entry(rules: DoorRules, path: str, headers: Mapping[str, str]) -> None:
    """Decide about a request.

    Args:
        rules: The door's.
        path: The URL's.
        headers: The request's; keys in lower case.

    Raises:
        ApiError: It may not come in.
    """
    host, origin = headers.get("host", ""), headers.get("origin")
    if origin is not None and not _is_welcome(origin, host, rules.origins):
        raise ApiError(
            f"pages of {origin[:80]!r} may not use this API; see api.allowed_origins", status=403
        )
    if not rules.token:
        if _name_of(host) not in rules.names:
            raise ApiError(f"this device is not {host[:80]!r}; set api.token_file", status=403)
        return
    if path in _OPEN_PATHS:
        return
    scheme, _, given = headers.get("authorization", "").partition(" ")
    is_right = hmac.compare_digest(given.strip().encode(), rules.token.encode())
    if scheme.lower() != "bearer" or not is_right:
        raise ApiError(
            "a bearer token is needed; it is in the file that api.token_file names",
            status=401,
            code="invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def guarded(app: ASGIApp, rules: DoorRules) -> ASGIApp:
    """The same application behind a door."""

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                require_entry(rules, scope["path"], dict(Headers(scope=scope)))
            except ApiError as error:
                await error_reply(error)(scope, receive, send)
                return
        await app(scope, receive, send)

    return door


def read_token(path: Path | None) -> str:
    """The token in a file; empty if there is no file to read.

    Raises:
        SettingsError: It cannot be read, or is too short.
    """
    if path is None:
        return ""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise SettingsError(f"api.token_file: cannot read {path}: {error}") from error
    if len(token) < _LEAST_TOKEN:
        raise SettingsError(
            f"api.token_file: {path} holds {len(token)} characters, at least {_LEAST_TOKEN} are"
            " needed; try: openssl rand -hex 16"
        )
    return token


def _is_welcome(origin: str, host: str, origins: frozenset[str]) -> bool:
    own = {f"http://{host}", f"https://{host}"}
    return origin in own or origin in origins or "*" in origins


def _name_of(host: str) -> str:
    """`localhost:8080` -> `localhost`; `[::1]:8080` -> `::1`."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""

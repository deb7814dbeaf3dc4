"""Passphrases, of a fleet's keys and of its Wi-Fi: from the environment, or asked for."""

import getpass
import os
import sys
from typing import Final

from fedpt.errors import UsageError

VARIABLE: Final = "FEDPT_PASSPHRASE"
WIFI_VARIABLE: Final = "FEDPT_WIFI_PASSPHRASE"

_SHORTEST: Final = 8


def read_passphrase(*, is_new: bool = False) -> str:
    """The passphrase; a new one is asked for twice and must not be short.

    Raises:
        UsageError: It is short, was mistyped, or there is nobody to ask.
    """
    passphrase = os.environ.get(VARIABLE) or _ask(is_new=is_new)
    if is_new and len(passphrase) < _SHORTEST:
        raise UsageError(f"a passphrase of {len(passphrase)} characters; {_SHORTEST} at least")
    return passphrase


def read_wifi_passphrase() -> str:
    """The Wi-Fi's passphrase; only its key is written down.

    Raises:
        UsageError: There is nobody to ask.
    """
    if passphrase := os.environ.get(WIFI_VARIABLE):
        return passphrase
    if not sys.stdin.isatty():
        raise UsageError(f"no terminal to ask for the Wi-Fi's passphrase: set {WIFI_VARIABLE}")
    return getpass.getpass("Passphrase of the Wi-Fi: ")


def _ask(*, is_new: bool) -> str:
    if not sys.stdin.isatty():
        raise UsageError(f"no terminal to ask for the fleet's passphrase: set {VARIABLE}")
    passphrase = getpass.getpass("Passphrase of the fleet's keys: ")
    if is_new and getpass.getpass("Once more: ") != passphrase:
        raise UsageError("the two passphrases differ; nothing was made")
    return passphrase

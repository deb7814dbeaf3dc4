"""Quiet calls into libllama, for the converters.

libllama talks to stderr through one global callback; here its talk is caught, and what it says of
errors is kept for our own messages. The engine has its own way: `fedpt.drivers.llama`.
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import llama_cpp

_ERROR_LEVEL: Final = 4  # GGML_LOG_LEVEL_ERROR


@contextmanager
def caught_log() -> Iterator[list[str]]:
    """Keep libllama off stderr inside the block; gives the list of its error lines.

    The callback that was set before is set again at the end. The setting is global: not for two
    threads at once.
    """
    errors: list[str] = []

    def keep(level: int, text: str) -> None:
        if level == _ERROR_LEVEL:
            lines = text.splitlines()
            errors.extend(line.strip() for line in lines if line.strip(" ="))  # no rulers

    with _heard(keep):
        yield errors


@contextmanager
def caught_talk() -> Iterator[list[str]]:
    """Like `caught_log`, for all that libllama says: pieces of lines, in order."""
    talk: list[str] = []
    with _heard(lambda _, text: talk.append(text)):
        yield talk


@contextmanager
def _heard(keep: Callable[[int, str], None]) -> Iterator[None]:
    def hear(level: int, text: bytes, _: ctypes.c_void_p) -> None:
        keep(level, text.decode("utf-8", errors="replace"))

    callback = llama_cpp.llama_log_callback(hear)
    before = llama_cpp.llama_log_callback()
    user_data = ctypes.c_void_p()
    llama_cpp.llama_log_get(ctypes.byref(before), ctypes.byref(user_data))
    llama_cpp.llama_log_set(callback, ctypes.c_void_p())
    try:
        yield
    finally:
        llama_cpp.llama_log_set(before, user_data)

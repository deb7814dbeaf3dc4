"""What goes into one call of libllama, and the rows that come out of it: numpy over its memory.

Writing a `llama_batch` field by field through ctypes, and its rows one by one, takes a tenth of a
millisecond a token: some percent of a small model's decode. For `fedpt.drivers.llama` only, which
must set the environment before libllama is loaded.
"""

import ctypes
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import llama_cpp as ll
import numpy as np
import numpy.typing as npt

from fedpt.drivers.llama_runs import Piece
from fedpt.proxy_tuning import Logits


class LlamaBatch:
    """A `llama_batch` whose arrays are numpy's."""

    def __init__(self, tokens: int) -> None:
        """Room for so many tokens, of one sequence each."""
        self._token, self._position, self._sequence = (np.zeros(tokens, np.int32) for _ in range(3))
        self._one = np.ones(tokens, np.int32)
        self._wanted = np.zeros(tokens, np.int8)
        first, size = self._sequence.ctypes.data, self._sequence.itemsize
        addresses = [first + size * place for place in range(tokens)]
        self._of_token = (ctypes.c_void_p * tokens)(*addresses)
        self.handle: Any = ll.llama_batch(  # Any: a ctypes structure
            token=_pointer(self._token, ll.llama_token),
            pos=_pointer(self._position, ll.llama_pos),
            n_seq_id=_pointer(self._one, ctypes.c_int32),
            seq_id=ctypes.cast(self._of_token, ctypes.POINTER(ctypes.POINTER(ll.llama_seq_id))),
            logits=_pointer(self._wanted, ctypes.c_int8),
        )

    def fill(self, pieces: Sequence[Piece]) -> None:
        """Put these in, instead of what was there."""
        begin = 0
        for piece in pieces:
            end = begin + len(piece.tokens)
            self._token[begin:end] = piece.tokens
            self._position[begin:end] = range(piece.position, piece.position + end - begin)
            self._sequence[begin:end] = piece.sequence
            self._wanted[begin : end - piece.wanted] = 0
            self._wanted[end - piece.wanted : end] = 1
            begin = end
        self.handle.n_tokens = begin


def told_rows(context: Any, count: int, width: int) -> Logits:  # Any: a ctypes pointer
    """The rows of the last call, `(count, width)`; libllama's memory until the next one."""
    address = ctypes.addressof(ll.llama_get_logits(context).contents)
    return _rows_at(address, count, width)


@lru_cache(maxsize=64)  # libllama's rows lie where they lay before, and making this takes time
def _rows_at(address: int, count: int, width: int) -> Logits:
    memory = (ctypes.c_float * (count * width)).from_address(address)
    return np.ndarray((count, width), np.float32, memory)  # type: ignore[arg-type]  # it is a buffer


def _pointer(values: npt.NDArray[np.generic], kind: Any) -> Any:  # Any: ctypes' own
    return values.ctypes.data_as(ctypes.POINTER(kind))

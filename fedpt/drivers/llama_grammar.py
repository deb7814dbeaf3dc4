"""Answers that keep to a grammar: llama.cpp's GBNF, and JSON schemas by way of it."""

import contextlib
import ctypes
import json
import os
import re
import tempfile
import threading
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any, Final, Self

import llama_cpp as ll
import numpy as np

from fedpt.decoding.constraint import Allowed
from fedpt.decoding.sampling import all_ids
from fedpt.drivers.llama import LlamaModel
from fedpt.errors import UsageError
from fedpt.proxy_tuning import TokenIds

_TOKEN_DATA = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
_DEEPEST: Final = 1000
_COMPLAINT: Final = b"parse: "
_one_at_a_time = threading.Lock()
_NO_GROUPS: Final = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)
"""Literals, character ranges and comments: brackets in these open nothing."""

_ANY_CHARACTER: Final = r'char ::= [^"\\]'
_ANY_JSON_CHARACTER: Final = r'char ::= [^"\\\x7F\x00-\x1F]'
"""Strings may not hold line ends and their like; llama-cpp-python's converter forgets that."""


class GrammarConstraint:
    """A `fedpt.decoding.ports.Constraint`: where in a grammar a text is."""

    def __init__(self, model: LlamaModel, sampler: Any) -> None:  # Any: a ctypes pointer
        """Take over a sampler of libllama's; see `of_gbnf`."""
        self._model = model
        self._sampler = sampler
        self._allowed: Allowed | None = None

    @classmethod
    def of_gbnf(cls, model: LlamaModel, gbnf: str) -> Self:
        """The beginning of a grammar, whose rule `root` is the whole answer.

        Raises:
            UsageError: It is no grammar.
        """
        if _depth(gbnf) > _DEEPEST:  # libllama would run out of stack, which ends the process
            raise UsageError(f"a grammar with groups more than {_DEEPEST} deep")
        with _complaints() as complaints:
            sampler = ll.llama_sampler_init_grammar(model.vocab_handle, gbnf.encode(), b"root")
        if not gbnf.strip() or not sampler:
            why = f": {complaints[0]}" if complaints else ""
            raise UsageError(f"not a GBNF grammar with a rule 'root': {gbnf[:80]!r}{why}")
        return cls(model, sampler)

    def allows(self, ids: TokenIds) -> Allowed:
        """Which of these tokens may come next."""
        if self._allowed is not None:
            return np.asarray(self._allowed[ids])
        data = np.zeros(len(ids), _TOKEN_DATA)
        data["id"] = ids
        array = ll.llama_token_data_array(
            data=data.ctypes.data_as(ctypes.POINTER(ll.llama_token_data)),
            size=len(ids),
            selected=-1,
            sorted=False,
        )
        ll.llama_sampler_apply(self._sampler, ctypes.byref(array))
        return np.asarray(data["logit"] > -np.inf)

    def allowed(self) -> Allowed:
        """The tokens that may come next, `(V,)`.

        Raises:
            UsageError: None may: the grammar asks for what this vocabulary cannot write.
        """
        if self._allowed is None:
            self._allowed = self.allows(all_ids(self._model.vocabulary_size))
            if not self._allowed.any():
                raise UsageError("the grammar leaves no token: it cannot be met")
        return self._allowed

    def after(self, token: int) -> "GrammarConstraint":
        """The constraint after one more token.

        Raises:
            UsageError: The token is not an allowed one.
        """
        is_token = 0 <= token < self._model.vocabulary_size
        if not (is_token and self.allows(np.array([token]))[0]):  # libllama would end the process
            raise UsageError(f"token {token} does not keep to the grammar")
        clone = ll.llama_sampler_clone(self._sampler)
        ll.llama_sampler_accept(clone, token)
        return GrammarConstraint(self._model, clone)

    def __del__(self) -> None:
        """Free it: constraints are values, and many are made an answer."""
        if self._sampler:
            ll.llama_sampler_free(self._sampler)
            self._sampler = None


def _depth(gbnf: str) -> int:
    """How deep a grammar's groups are in each other."""
    steps = [1 if one == "(" else -1 for one in re.findall(r"[()]", _NO_GROUPS.sub("", gbnf))]
    return max(accumulate(steps), default=0)


@contextlib.contextmanager
def _complaints() -> Iterator[list[str]]:
    """What libllama's parser says of a grammar, which it writes to file 2 past all logging.

    What others write there meanwhile goes where it should afterwards.
    """
    lines: list[str] = []
    with _one_at_a_time, tempfile.TemporaryFile() as file:
        real = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lines
        finally:
            os.dup2(real, 2)
            os.close(real)
            file.seek(0)
            said = file.read()
            if said.startswith(_COMPLAINT):
                lines += said.removeprefix(_COMPLAINT).decode(errors="replace").splitlines()
            elif said:
                os.write(2, said)


def schema_to_gbnf(schema: Mapping[str, object]) -> str:
    """The grammar of all JSON texts that a JSON schema admits.

    Raises:
        UsageError: The schema uses what cannot be turned into a grammar.
    """
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        gbnf = str(json_schema_to_gbnf(json.dumps(schema)))
    except Exception as error:  # it raises whatever it likes
        raise UsageError(f"this JSON schema cannot be made a grammar: {error}") from error
    return gbnf.replace(_ANY_CHARACTER, _ANY_JSON_CHARACTER)

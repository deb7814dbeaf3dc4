"""Reading a foreign server's JSON: what is not as documented is one clear error."""

from typing import Any

from fedpt.errors import LargeModelError

Json = Any  # Any: whatever a foreign server writes


def field(told: Json, *path: str | int) -> Json:
    """What lies at a path of keys and indices.

    Raises:
        LargeModelError: It is not there.
    """
    for key in path:
        try:
            told = told[key]
        except (KeyError, IndexError, TypeError):
            where = ".".join(map(str, path))
            raise LargeModelError(f"the model server's answer has no {where}") from None
    return told


def listed(told: Json, *path: str | int) -> list[Json]:
    """The list at a path.

    Raises:
        LargeModelError: There is none.
    """
    found = field(told, *path)
    if not isinstance(found, list):
        raise LargeModelError(f"the model server's {'.'.join(map(str, path))} is no list")
    return found


def number(told: Json) -> float:
    """A number.

    Raises:
        LargeModelError: It is something else.
    """
    if isinstance(told, bool) or not isinstance(told, int | float):
        raise LargeModelError(f"the model server wrote {str(told)[:40]!r} for a number")
    return float(told)


def token_id(told: Json) -> int:
    """A token id, as a number or written out, `token_id:123` too.

    Raises:
        LargeModelError: It is something else.
    """
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    digits = str(told).removeprefix("token_id:")
    if not digits.isascii() or not digits.isdigit():
        raise LargeModelError(f"the model server wrote {str(told)[:40]!r} for a token id")
    return int(digits)

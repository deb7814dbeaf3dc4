"""A doctor: looks at one thing after the other and says what is wrong and how to mend it.

Here is how findings are collected and shown; what is looked at is each app's own list of checks,
with those that both share in `health_checks`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from fedpt.errors import FedptError

Level = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check saw."""

    level: Level
    what: str
    """What was looked at, and how it is."""
    advice: str = ""
    """How to mend it: a command, where there is one."""


Check = Callable[[], Iterable[Finding]]
"""Looks at one thing; gives nothing where there is nothing to look at."""

_MARKS: Final[dict[Level, str]] = {"ok": "✓", "warning": "!", "fault": "✗"}
_ADVICE: Final = {
    "model_file": "copy or make it again: fedpt convert model --help",
    "data_file": "mend that line, or the file as it says",
    "artifact": "ls -l it, and put the right file there",
    "storage": "ls -l it; run as the service's user: sudo -u fedpt fedpt …",
}
"""By the code of an error that a check meets."""

_PLAIN_MARKS: Final[dict[Level, str]] = {"ok": "ok", "warning": "!", "fault": "X"}
"""For terminals that cannot show the others."""


def ok(what: str) -> Finding:
    """All is well."""
    return Finding("ok", what)


def warning(what: str, advice: str) -> Finding:
    """It works, but not well, or not for long."""
    return Finding("warning", what, advice)


def fault(what: str, advice: str) -> Finding:
    """It does not work."""
    return Finding("fault", what, advice)


def examine(checks: Iterable[Check]) -> Iterator[Finding]:
    """Run the checks in order, each finding as soon as it is there. Nothing stops the next check.

    A check that meets an error of ours has found it; any other exception is told as a fault too,
    for the doctor is called when anything may be broken.
    """
    for check in checks:
        try:
            yield from check()
        except FedptError as error:
            yield fault(str(error), _ADVICE.get(error.code, ""))
        except ModuleNotFoundError as error:
            yield fault(
                f"the Python package {error.name} is missing",
                f"pip install {(error.name or '').partition('.')[0]}",
            )
        except Exception as error:  # noqa: BLE001  # whatever is broken, the other checks go on
            name = getattr(check, "__name__", "a check").strip("_").replace("_", " ")
            yield fault(f"{name}: {type(error).__name__}: {error}", "see what it names")


def report(
    checks: Iterable[Check], write: Callable[[str], None], *, is_json: bool, encoding: str
) -> bool:
    """Write each finding as soon as it is there, or all of them as one JSON object.

    Returns:
        Whether nothing is at fault.
    """
    findings = []
    for finding in examine(checks):
        findings.append(finding)
        if not is_json:
            write(line(finding, encoding=encoding))
    if is_json:
        write(json.dumps(as_json(findings), indent=2))
    return is_healthy(findings)


def is_healthy(findings: Iterable[Finding]) -> bool:
    """Whether nothing is at fault; warnings do not count."""
    return all(finding.level != "fault" for finding in findings)


def line(finding: Finding, *, encoding: str = "utf-8") -> str:
    """A finding as a line of text that this encoding can carry."""
    text = f"{_MARKS[finding.level]} {finding.what}"
    if finding.advice:
        text += f" → {finding.advice}"
    # some of it comes from the network: it must not steer the terminal
    text = "".join(one if one.isprintable() else "?" for one in " ".join(text.split()))
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        plain = text[1:].replace("→", "->").encode("ascii", "replace").decode()
        return f"{_PLAIN_MARKS[finding.level]}{plain}"
    return text


def as_json(findings: Sequence[Finding]) -> dict[str, object]:
    """All findings, for programs."""
    return {"healthy": is_healthy(findings), "findings": [asdict(one) for one in findings]}

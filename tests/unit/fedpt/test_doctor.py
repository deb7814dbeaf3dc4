"""How findings are collected and shown."""

import json
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from fedpt.doctor import Finding, as_json, examine, fault, is_healthy, line, ok, warning
from fedpt.errors import StorageError

FINDINGS = st.builds(
    Finding, st.sampled_from(["ok", "warning", "fault"]), st.text(), advice=st.text()
)


def breaks() -> Iterator[Finding]:
    yield ok("first")
    raise StorageError("the disk is full")


def surprises() -> Iterator[Finding]:
    raise RuntimeError("nobody expected this")
    yield ok("never")


def lacks() -> Iterator[Finding]:
    raise ModuleNotFoundError("No module named 'paho.mqtt'", name="paho.mqtt")
    yield ok("never")


def test_nothing_stops_the_next_check() -> None:
    findings = list(examine([breaks, surprises, lacks, lambda: [ok("last")]]))
    assert findings == [
        ok("first"),
        fault("the disk is full", "ls -l it; run as the service's user: sudo -u fedpt fedpt …"),
        fault("surprises: RuntimeError: nobody expected this", "see what it names"),
        fault("the Python package paho.mqtt is missing", "pip install paho"),
        ok("last"),
    ]


def test_only_a_fault_is_unhealthy() -> None:
    assert is_healthy([])
    assert is_healthy([ok("a"), warning("b", "c")])
    assert not is_healthy([ok("a"), fault("b", "c")])


def test_a_finding_is_one_line_with_its_mark_and_advice() -> None:
    assert line(ok("disk: fine")) == "✓ disk: fine"
    assert line(warning("clock: late", "mend\nit")) == "! clock: late → mend it"
    assert line(fault("key: open", "chmod 600 key")) == "✗ key: open → chmod 600 key"


def test_a_plain_terminal_gets_plain_marks() -> None:
    assert line(fault("80 °C", "cool it"), encoding="ascii") == "X 80 ?C -> cool it"
    assert line(ok("fine"), encoding="latin-1") == "ok fine"
    assert line(ok("fine"), encoding="no-such-encoding") == "ok fine"


@given(FINDINGS, st.sampled_from(["utf-8", "ascii", "cp1252"]))
def test_every_finding_is_one_line_that_its_encoding_carries(
    finding: Finding, encoding: str
) -> None:
    text = line(finding, encoding=encoding)
    assert len(text.splitlines()) == 1
    text.encode(encoding)


def test_nothing_in_a_finding_steers_the_terminal() -> None:
    assert line(warning("fault: \x1b[2Jgone", "")) == "! fault: ?[2Jgone"


def test_programs_get_all_of_it() -> None:
    shown = as_json([ok("a"), fault("b", "c")])
    assert json.loads(json.dumps(shown)) == {
        "healthy": False,
        "findings": [
            {"level": "ok", "what": "a", "advice": ""},
            {"level": "fault", "what": "b", "advice": "c"},
        ],
    }

"""Log lines: JSON for machines, one clean line for people."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from fedpt.log_setup import configure


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    before = root.level, list(root.handlers)
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for package in ("fedpt", "converters", "coordinator", "edge_runtime", "deploy"):
        logging.getLogger(package).setLevel(logging.NOTSET)


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> io.StringIO:
    stderr = getattr(request, "param", io.StringIO)()
    monkeypatch.setattr(sys, "stderr", stderr)
    configure()
    return stderr


on_a_terminal = pytest.mark.parametrize("log", [Terminal], indirect=True)


def test_elsewhere_each_line_is_json_with_its_facts(log: io.StringIO) -> None:
    logging.getLogger("fedpt.x").info("round %s", 3, extra={"device": "Küche", "path": io})
    line = json.loads(log.getvalue())
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "fedpt.x", "round 3")
    assert line["device"] == "Küche"
    assert line["time"].endswith("+00:00")
    assert set(line) == {"time", "level", "logger", "message", "device", "path"}


@on_a_terminal
def test_people_get_time_level_text_and_facts(log: io.StringIO) -> None:
    logging.getLogger("fedpt.x").warning("round %s", 3, extra={"device": "Küche"})
    assert log.getvalue()[8:] == " WARNING round 3  device=Küche\n"


@on_a_terminal
def test_text_from_the_network_cannot_forge_lines_or_steer_a_terminal(log: io.StringIO) -> None:
    fault = "x\n12:00:00 ERROR all is lost \x1b[2J\x9b\u2028y"
    logging.getLogger("fedpt.x").warning("fault: %s", fault, extra={"fault": fault})
    line, end = log.getvalue()[:-1], log.getvalue()[-1]
    assert end == "\n"
    assert line.isprintable()
    assert r"x\n12:00:00" in line


def test_text_from_the_network_stays_one_json_line(log: io.StringIO) -> None:
    logging.getLogger("fedpt.x").warning("%s", 'x\n{"level": "ERROR"}')
    assert log.getvalue().count("\n") == 1


def test_an_exception_is_logged_with_its_traceback(log: io.StringIO) -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("fedpt.x").exception("a callback failed")
    assert "KeyError: 'lost'" in json.loads(log.getvalue())["traceback"]


@on_a_terminal
def test_people_get_the_traceback_below(log: io.StringIO) -> None:
    try:
        raise KeyError("lost")
    except KeyError:
        logging.getLogger("fedpt.x").exception("a callback failed")
    assert log.getvalue().splitlines()[-1] == "KeyError: 'lost'"


def test_others_are_heard_from_warnings_on(log: io.StringIO) -> None:
    logging.getLogger("httpx").info("GET /")
    logging.getLogger("fedpt.x").debug("detail")
    assert log.getvalue() == ""


@pytest.mark.usefixtures("log")
def test_verbose_is_about_us() -> None:
    configure(verbose=True)
    assert logging.getLogger("edge_runtime.daemon").isEnabledFor(logging.DEBUG)
    assert not logging.getLogger("httpx").isEnabledFor(logging.INFO)

from pathlib import Path

import pytest

from edge_runtime.api.api_errors import ApiError
from edge_runtime.api.auth import DoorRules, read_token, require_entry
from fedpt.errors import SettingsError

OPEN = DoorRules()
LOCKED = DoorRules(token="correct horse battery")
HERE = {"host": "127.0.0.1:8080"}


def status_of(rules: DoorRules, headers: dict[str, str], path: str = "/v1/models") -> int:
    """What a request is refused with; 200: it comes in."""
    try:
        require_entry(rules, path, {**HERE, **headers})
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("authorization", "status"),
    [
        ("Bearer correct horse battery", 200),
        ("bearer correct horse battery", 200),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        ("Bearer correct horse battery!", 401),
        ("Bearer ünïcode", 401),
        ("Basic correct horse battery", 401),
        ("", 401),
    ],
)
def test_only_the_token_opens_the_door(authorization: str, status: int) -> None:
    assert status_of(LOCKED, {"authorization": authorization}) == status


def test_the_page_and_health_checks_need_no_token() -> None:
    assert status_of(LOCKED, {}, "/") == 200
    assert status_of(LOCKED, {}, "/health") == 200
    assert status_of(LOCKED, {}, "/metrics") == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:8080", 200),
        ("evil.example:8080", 403),
        ("", 403),
        ("[", 403),
    ],
)
def test_without_a_token_only_the_loopbacks_names_are_answered(host: str, status: int) -> None:
    assert status_of(OPEN, {"host": host}) == status


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://127.0.0.1:8080", 200),
        ("https://evil.example", 403),
        ("http://127.0.0.1:9090", 403),
        ("null", 403),
        ("https://hub.local", 200),
    ],
)
def test_pages_of_other_sites_come_in_only_by_name(origin: str, status: int) -> None:
    rules = DoorRules(origins=frozenset({"https://hub.local"}))
    assert status_of(rules, {"origin": origin}) == status


def test_a_star_lets_all_sites_in() -> None:
    assert status_of(DoorRules(origins=frozenset("*")), {"origin": "https://any.example"}) == 200


def test_a_token_is_read_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert read_token(tmp_path / "token") == "0123456789abcdef"
    assert read_token(None) == ""


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 20])
def test_a_token_file_that_is_of_no_use_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    with pytest.raises(SettingsError, match=r"api\.token_file: "):
        read_token(tmp_path / "token")


def test_a_missing_token_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        read_token(tmp_path / "token")

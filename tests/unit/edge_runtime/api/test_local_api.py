"""The doors of the API: a real Unix socket and a real TCP port; the assistant is a fake."""

import socket as connection
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from edge_runtime.api.local_api import LocalApi
from edge_runtime.drivers.local_client import ask_daemon, daemon_status, is_served
from edge_runtime.question import Piece, user_question
from edge_runtime.settings import ApiSettings, AssistantSettings, DeviceSettings
from fedpt.errors import DeviceDownError, SettingsError, UsageError
from tests.fakes.api_servers import (
    WAIT_S,
    RunningApi,
    ScriptedAssistant,
    running_api,
    summary_of,
)
from tests.fakes.brokers import free_port

HELLO = {"messages": [{"role": "user", "content": "Hello?"}]}
TOKEN = "correct horse battery"


@pytest.fixture
def assistant() -> ScriptedAssistant:
    return ScriptedAssistant()


@pytest.fixture
def api(tmp_path: Path, assistant: ScriptedAssistant) -> Iterator[RunningApi]:
    with running_api(assistant, tmp_path, has_port=False) as running:
        yield running
    assert not running.socket.exists()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    return tmp_path / "token"


def device(folder: Path, *, state: str = "state", **api: object) -> DeviceSettings:
    return DeviceSettings(
        name="board-1",
        small=folder / "small.gguf",
        state_dir=folder / state,
        api=ApiSettings.model_validate(api),
    )


def test_the_command_line_gets_piece_by_piece_then_the_summary(
    api: RunningApi, assistant: ScriptedAssistant
) -> None:
    question = user_question("Hello?", "steered", max_tokens=7)
    assistant.go_on.clear()
    items = ask_daemon(api.socket, question)
    assert next(items) == Piece("Grü", is_steered=True)
    assistant.go_on.set()
    expected = summary_of("Grüße.", question, tokens=2, steered=2)
    assert list(items) == [Piece("ße.", is_steered=True), expected]
    assert assistant.asked == [question]


def test_a_refused_question_is_a_usage_error(api: RunningApi) -> None:
    with pytest.raises(UsageError, match=r"^the question is empty$"):
        list(ask_daemon(api.socket, user_question("")))


@pytest.mark.parametrize("body", [b"{}", b"no json", b'{"messages":[]}', b"[" * 100_000])
def test_a_body_that_is_no_question_is_refused(api: RunningApi, body: bytes) -> None:
    with api.on_socket() as client:
        reply = client.post("/answer", content=body)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith("not a question: ")


def test_a_device_that_shares_nothing_answers_alone_and_says_so(
    tmp_path: Path, assistant: ScriptedAssistant
) -> None:
    never = AssistantSettings(share_questions="never")
    with running_api(assistant, tmp_path, has_port=False, assistant_settings=never) as api:
        *_, summary = ask_daemon(api.socket, user_question("Hello?", "steered"))
    assert assistant.asked[0].mode == "local"
    assert "share_questions = never" in getattr(summary, "fallback", "")


def test_the_status_is_that_of_the_daemon(api: RunningApi) -> None:
    assert is_served(api.socket)
    assert daemon_status(api.socket) == {"device": "board-1"}


def test_the_socket_is_for_its_owner_only_and_serves_everything(api: RunningApi) -> None:
    with api.on_socket() as client:
        paths = ("/", "/health", "/metrics", "/v1/models", "/status")
        assert [client.get(path).status_code for path in paths] == [200] * 5
    assert stat.S_IMODE(api.socket.stat().st_mode) == 0o600


def test_over_tcp_the_command_lines_routes_are_not_served(
    tmp_path: Path, assistant: ScriptedAssistant
) -> None:
    with running_api(assistant, tmp_path) as api:
        assert api.get("/health").json() == {"status": "ok"}
        assert [api.post(path).status_code for path in ("/answer", "/teach")] == [404, 404]
        error = api.get("/status").json()["error"]
    assert error["message"] == "GET /status: Not Found"


def test_a_wrong_method_is_told_in_openais_form(
    tmp_path: Path, assistant: ScriptedAssistant
) -> None:
    with running_api(assistant, tmp_path) as api:
        reply = api.get("/v1/chat/completions")
    assert reply.status_code == 405
    assert reply.json()["error"]["type"] == "invalid_request_error"


def test_where_a_token_is_set_nobody_comes_in_without(
    tmp_path: Path, assistant: ScriptedAssistant, token_file: Path
) -> None:
    with running_api(assistant, tmp_path, host="0.0.0.0", token_file=token_file) as api:
        assert api.get("/health").status_code == api.get("/").status_code == 200
        refused = api.post("/v1/chat/completions", json=HELLO)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert refused.json()["error"]["code"] == "invalid_api_key"
        entry = {"Authorization": f"Bearer {TOKEN}"}
        assert api.post("/v1/chat/completions", json=HELLO, headers=entry).status_code == 200
    assert len(assistant.asked) == 1


def test_a_named_site_may_use_the_api_and_others_may_not(
    tmp_path: Path, assistant: ScriptedAssistant, token_file: Path
) -> None:
    site = "https://hub.local"
    asked = {"Access-Control-Request-Method": "POST", "Origin": site}
    with running_api(assistant, tmp_path, allowed_origins=[site], token_file=token_file) as api:
        preflight = httpx.options(f"{api.url}/v1/chat/completions", headers=asked)
        assert preflight.headers["access-control-allow-origin"] == site
        other = api.get("/health", headers={"Origin": "https://evil.example"})
        assert other.status_code == 403
        assert "access-control-allow-origin" not in other.headers


def test_without_named_sites_no_page_but_our_own_comes_in(
    tmp_path: Path, assistant: ScriptedAssistant
) -> None:
    with running_api(assistant, tmp_path) as api:
        foreign = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
        assert api.post("/v1/chat/completions", json=HELLO, headers=foreign).status_code == 403
        assert api.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert assistant.asked == []


@pytest.mark.parametrize("size", [2000, 200_000])
def test_a_body_that_is_too_long_is_refused(
    tmp_path: Path, assistant: ScriptedAssistant, size: int
) -> None:
    with running_api(assistant, tmp_path, largest_request_kb=1) as api:
        reply = api.post("/v1/chat/completions", content=b"a" * size)
        chunked = api.post("/v1/chat/completions", content=iter([b"a" * 1000] * (size // 1000)))
    assert reply.status_code == chunked.status_code == 413
    assert reply.json()["error"]["message"] == "the request is larger than 1024 bytes"


def test_what_a_killed_daemon_left_is_no_obstacle(
    tmp_path: Path, assistant: ScriptedAssistant
) -> None:
    settings = device(tmp_path)
    settings.socket.parent.mkdir()
    settings.socket.write_bytes(b"")
    api = LocalApi(assistant, settings, status=dict)
    api.start()
    assert is_served(settings.socket)
    api.stop()


def test_a_device_without_its_doors_goes_on(tmp_path: Path, assistant: ScriptedAssistant) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with connection.create_server(("127.0.0.1", 0)) as taken:
        settings = device(tmp_path, port=taken.getsockname()[1])
        api = LocalApi(assistant, settings, status=dict)
        api.start()
        assert not is_served(settings.socket)
        api.stop()


def test_a_token_that_cannot_be_read_is_told_at_once(
    tmp_path: Path, assistant: ScriptedAssistant
) -> None:
    with pytest.raises(SettingsError, match="cannot read"):
        LocalApi(assistant, device(tmp_path, port=1, token_file=tmp_path / "none"), status=dict)


def test_no_daemon_is_told_in_one_line(tmp_path: Path) -> None:
    assert not is_served(tmp_path / "a.sock")
    with pytest.raises(DeviceDownError, match=r"start it with 'fedpt device run'") as caught:
        list(ask_daemon(tmp_path / "a.sock", user_question("Hello?")))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "::"])
def test_addresses_of_both_kinds_are_listened_at(
    tmp_path: Path, assistant: ScriptedAssistant, token_file: Path, host: str
) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    settings = device(tmp_path, host=host, port=free_port(), token_file=token_file)
    api = LocalApi(assistant, settings, status=dict)
    api.start()
    url = f"http://{'[::1]' if host == '::1' else '127.0.0.1'}:{settings.api.port}/health"
    assert httpx.get(url, timeout=WAIT_S).json() == {"status": "ok"}
    api.stop()


def has_ipv6() -> bool:
    try:
        with connection.create_server(("::1", 0), family=connection.AF_INET6):
            return True
    except OSError:
        return False

"""HTTP with a model server that is down, busy, slow, or talks nonsense."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator.worker.backends.model_server import ModelServer
from fedpt.errors import BusyError, LargeModelError, SettingsError
from tests.fakes.model_servers import scripted_server
from tests.fakes.told_rows import back_end
from tests.unit.coordinator.worker.backends.conftest import Connect

ServerAt = Callable[..., ModelServer]

NOBODY = "http://127.0.0.1:9"  # the discard port: nobody listens


@pytest.fixture
def server_at(connect: Connect) -> ServerAt:
    return lambda url, **more: connect(back_end("llama-server", url, **more))


def test_a_server_that_is_busy_for_a_moment_is_asked_again(server_at: ServerAt) -> None:
    with scripted_server((503, {}), (429, {}), (200, {"a": 1})) as script:
        assert server_at(script.url).post("/x", {"b": 2}) == {"a": 1}
    assert [body for _, body, _ in script.heard] == [{"b": 2}] * 3


def test_patience_ends_and_the_next_request_does_not_wait(server_at: ServerAt) -> None:
    with scripted_server((429, {"error": {"message": "too many\n requests"}})) as script:
        server = server_at(script.url, timeout_s=0.3)
        for _ in range(2):
            with pytest.raises(BusyError, match="refuses /x with 429: too many requests"):
                server.post("/x", {})
        first = len(script.heard) - 1
    assert first >= 2


def test_a_wait_that_the_server_wants_and_we_have_no_patience_for_is_the_end(
    server_at: ServerAt,
) -> None:
    with scripted_server((429, {})) as script:
        script.headers["retry-after"] = "3600"
        began = time.monotonic()
        with pytest.raises(BusyError):
            server_at(script.url).post("/x", {})
    assert time.monotonic() - began < 5
    assert len(script.heard) == 1


def test_nobody_there_is_one_line(server_at: ServerAt) -> None:
    with pytest.raises(LargeModelError, match=f"{NOBODY} cannot be reached: ") as caught:
        server_at(NOBODY, timeout_s=0.2).post("/x", {})
    assert "\n" not in str(caught.value)


def test_a_slow_server_is_given_up(server_at: ServerAt) -> None:
    with scripted_server((200, {})) as script:
        script.delay_s = 0.4
        with pytest.raises(LargeModelError, match=r"took longer than 0\.1 s"):
            server_at(script.url, timeout_s=0.1).post("/x", {})


@pytest.mark.parametrize(
    ("status", "answer", "message"),
    [
        (401, {}, "does not let us in"),
        (404, {"error": {"message": "The model `x` does not exist."}}, "404: The model `x` does"),
        (404, {"detail": "Not Found"}, "404: Not Found"),
        (400, {"error": "too long"}, "400: too long"),
        (500, b"<html>\noops\n</html>", "500: <html> oops"),
        (500, b"", "500: Internal Server Error"),
        (400, ["odd"], "400: "),
        (307, {}, "307"),
        (200, b"not json", "no JSON"),
        (200, b"\xff\xfe", "no JSON"),
        (200, b"[" * 100_000, "no JSON"),
    ],
)
def test_refusals_and_nonsense_are_one_line_and_not_tried_again(
    status: int, answer: object, message: str, server_at: ServerAt
) -> None:
    with scripted_server((status, answer)) as script:
        with pytest.raises(LargeModelError, match=message) as caught:
            server_at(script.url).post("/x", {})
        assert "\n" not in str(caught.value)
        assert len(script.heard) == 1


def test_the_key_goes_to_the_server_and_nowhere_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, server_at: ServerAt
) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    with scripted_server((401, {})) as script, caplog.at_level("DEBUG"):
        server = server_at(script.url, api_key_file=tmp_path / "key")
        with pytest.raises(LargeModelError) as caught:
            server.post("/x", {})
    assert script.heard[0][2]["authorization"] == "Bearer s3cret"
    assert "s3cret" not in caplog.text + str(caught.value) + repr(vars(server))


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"\xff", "schlüssel".encode()])
def test_a_file_that_holds_no_key_is_refused(
    tmp_path: Path, content: bytes, server_at: ServerAt
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SettingsError, match="key"):
        server_at(NOBODY, api_key_file=tmp_path / "key")


def test_v1_may_stand_at_the_end_of_the_address(server_at: ServerAt) -> None:
    assert server_at("http://gpu:8000/v1/").url == "http://gpu:8000"

"""The chat page in a real browser, headless Chromium, in front of the real API."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edge_runtime.api.chat_page import content_policy
from edge_runtime.settings import AssistantSettings
from tests.fakes.api_servers import WAIT_S, RunningApi, ScriptedAssistant, running_api

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PHONE = {"width": 390, "height": 844}
NASTY = "<b>bold</b> <img src=x onerror=\"document.title='owned'\">"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed; apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield chromium
        chromium.close()


@pytest.fixture
def assistant() -> ScriptedAssistant:
    return ScriptedAssistant(("The lamp ", "is on."))


@pytest.fixture
def api(assistant: ScriptedAssistant, tmp_path: Path) -> Iterator[RunningApi]:
    with running_api(assistant, tmp_path) as running:
        yield running


@contextmanager
def opened(browser: "Browser", api: RunningApi, **options: Any) -> "Iterator[Page]":
    """The page in a window of its own; whatever it complains of fails the test."""
    complaints: list[str] = []
    with browser.new_context(viewport=PHONE, **options) as context:
        context.set_default_timeout(10_000)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if is_fault(said) else None)
        with page.expect_response("**/v1/models"):
            page.goto(api.url)
        yield page
    assert complaints == []


def is_fault(said: Any) -> bool:
    """The browser logs refused requests as well, which tests of refusals want."""
    return said.type == "error" and "the server responded with a status of 4" not in said.text


def ask(page: "Page", text: str) -> None:
    page.get_by_label("Your question").fill(text)
    page.keyboard.press("Enter")


def test_an_answer_streams_in_and_says_what_it_was_made_of(
    browser: "Browser", api: RunningApi, assistant: ScriptedAssistant
) -> None:
    assistant.go_on.clear()
    with opened(browser, api) as page:
        page.get_by_role("radio", name="With the large model").check()
        assert "sent to the coordinator" in page.locator("#sent").inner_text()
        ask(page, "Is the lamp on?")
        page.get_by_text("The lamp", exact=True).wait_for()  # while the rest is not there yet
        assistant.go_on.set()
        page.get_by_text("The lamp is on.").wait_for()
        page.get_by_text("Why this answer?").click()
        facts = page.locator("dl").inner_text()
    assert "20 % of the drafts" in facts
    assert "300 bytes sent, 200 bytes received" in facts
    assert assistant.asked[0].mode == "steered"


def test_the_next_question_comes_with_the_conversation(
    browser: "Browser", api: RunningApi, assistant: ScriptedAssistant
) -> None:
    with opened(browser, api) as page:
        ask(page, "Is the lamp on?")
        page.get_by_text("Why this answer?").wait_for()
        page.reload()  # the tab keeps it
        page.get_by_text("The lamp is on.").wait_for()
        ask(page, "And the radio?")
        page.get_by_text("Why this answer?").nth(1).wait_for()
        page.get_by_role("button", name="New chat").click()
        assert page.get_by_text("The lamp is on.").count() == 0
    said = [message.content for message in assistant.asked[1].messages]
    assert said == ["Is the lamp on?", "The lamp is on.", "And the radio?"]
    assert assistant.asked[1].mode == "local"


def test_stop_ends_the_work_and_keeps_what_has_come(
    browser: "Browser", api: RunningApi, assistant: ScriptedAssistant
) -> None:
    assistant.go_on.clear()
    with opened(browser, api) as page:
        ask(page, "Is the lamp on?")
        page.get_by_text("The lamp", exact=True).wait_for()
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Stopped.").wait_for()
        page.get_by_role("button", name="Send").wait_for()
        assistant.go_on.set()
        assert assistant.was_closed.wait(WAIT_S)
        assert page.get_by_text("is on.").count() == 0


def test_text_is_never_taken_for_html(browser: "Browser", tmp_path: Path) -> None:
    assistant = ScriptedAssistant((NASTY,))
    with running_api(assistant, tmp_path) as api, opened(browser, api) as page:
        ask(page, NASTY)
        page.get_by_text("Why this answer?").wait_for()
        bubbles = page.locator(".bubble").all_inner_texts()
        assert bubbles == [NASTY, NASTY]
        assert page.locator("main b, main img").count() == 0
        assert page.title() != "owned"


def test_a_board_that_asks_for_a_token_gets_it_once_a_tab(
    browser: "Browser", assistant: ScriptedAssistant, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("correct horse battery\n")
    with running_api(assistant, tmp_path, token_file=token) as api, opened(browser, api) as page:
        page.get_by_label("access token").fill("wrong")
        page.get_by_role("button", name="Open").click()
        page.get_by_text("That is not the token.").wait_for()
        page.get_by_label("access token").fill("correct horse battery")
        page.get_by_role("button", name="Open").click()
        page.get_by_label("Your question").wait_for()
        page.reload()
        ask(page, "Is the lamp on?")
        page.get_by_text("The lamp is on.").wait_for()


def test_a_board_that_shares_nothing_cannot_be_switched(
    browser: "Browser", assistant: ScriptedAssistant, tmp_path: Path
) -> None:
    never = AssistantSettings(share_questions="never")
    with (
        running_api(assistant, tmp_path, assistant_settings=never) as api,
        opened(browser, api) as page,
    ):
        page.get_by_text("its owner does not allow it").wait_for()
        assert page.get_by_role("radio", name="With the large model").is_disabled()


def test_a_refused_question_can_be_sent_again(browser: "Browser", tmp_path: Path) -> None:
    assistant = ScriptedAssistant()
    with (
        running_api(assistant, tmp_path, largest_request_kb=1) as api,
        opened(browser, api) as page,
    ):
        ask(page, "a" * 2000)
        page.get_by_text("the request is larger than 1024 bytes").wait_for()
        assert page.get_by_label("Your question").input_value() == "a" * 2000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_without_scrolling_sideways(
    browser: "Browser", api: RunningApi, assistant: ScriptedAssistant, scheme: str
) -> None:
    assistant.pieces = ("word " * 60, "x" * 300)
    with opened(browser, api, color_scheme=scheme) as page:
        page.get_by_role("radio", name="With the large model").check()
        ask(page, "A long question about many things? " * 4)
        page.get_by_text("Why this answer?").click()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.locator("main").evaluate("one => one.scrollWidth") == PHONE["width"]
        small = "all => all.filter(one => one.getBoundingClientRect().height < 40).length"
        assert page.locator("button:visible, textarea, .switch label").evaluate_all(small) == 0


def test_the_page_may_load_nothing_and_run_nothing_else(api: RunningApi) -> None:
    reply = api.get("/")
    policy = reply.headers["content-security-policy"]
    assert policy == content_policy(reply.text)
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert re.findall(r"(?:src|href|url|@import)[=(\s]+[^\s>]+", reply.text) == ['href="data:,"']

import pytest

from edge_runtime.consent import SharePolicy, choose_mode
from edge_runtime.question import Mode


@pytest.mark.parametrize(
    ("policy", "wanted", "mode"),
    [
        ("never", None, "local"),
        ("never", "local", "local"),
        ("never", "steered", "local"),
        ("ask", None, "local"),
        ("ask", "local", "local"),
        ("ask", "steered", "steered"),
        ("always", None, "steered"),
        ("always", "local", "local"),
        ("always", "steered", "steered"),
    ],
)
def test_a_question_leaves_only_if_owner_and_asker_agree(
    policy: SharePolicy, wanted: Mode | None, mode: Mode
) -> None:
    assert choose_mode(policy, wanted, has_large=True)[0] == mode


def test_what_the_owner_forbids_is_told() -> None:
    assert choose_mode("never", "steered", has_large=True) == (
        "local",
        "questions stay on this device (share_questions = never)",
    )


def test_a_missing_large_model_is_told_to_who_asked_for_it() -> None:
    assert choose_mode("ask", "steered", has_large=False)[1].endswith("no large model to ask")
    assert choose_mode("always", None, has_large=False) == ("local", "")


@pytest.mark.parametrize("policy", ["never", "ask", "always"])
def test_who_wants_the_board_alone_gets_it_without_a_word(policy: SharePolicy) -> None:
    assert choose_mode(policy, "local", has_large=False) == ("local", "")

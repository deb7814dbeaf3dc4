from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.chat.commands import COMMANDS
from edge_runtime.chat.conversation import (
    Action,
    Answered,
    Ask,
    AskConsent,
    AskLesson,
    Conversation,
    Quit,
    Save,
    Say,
    Show,
    Teach,
    answered,
    cancelled,
    cut_off_note,
    hear,
    refusal_note,
    refused,
)
from edge_runtime.question import Piece, Question
from fedpt.errors import UsageError
from tests.fakes.answer_facts import SUMMARY

CHAT = Conversation("always", has_large=True, can_ask_person=True)
CAREFUL = replace(CHAT, policy="ask")
ANSWER = Answered((Piece("It "), Piece("is.")), SUMMARY)


def _asked(chat: Conversation, *lines: str) -> tuple[Conversation, Question]:
    """The question that these lines lead to."""
    action: Action | None = None
    for line in lines:
        chat, action = hear(chat, line)
    assert isinstance(action, Ask)
    return chat, action.question


def _after(chat: Conversation, *lines: str) -> Conversation:
    """The chat after these lines, each of which is answered if it asks."""
    for line in lines:
        chat, action = hear(chat, line)
        if isinstance(action, Ask):
            chat = answered(chat, ANSWER)
    return chat


def _contents(question: Question) -> list[str]:
    return [message.content for message in question.messages]


def test_a_question_carries_the_conversation_before_it() -> None:
    chat = _after(CHAT, "Is the lamp on?", "/why", "Surely?")
    _, question = _asked(chat, "Really?")
    assert _contents(question) == ["Is the lamp on?", "It is.", "Surely?", "It is.", "Really?"]
    assert [message.role for message in question.messages[:2]] == ["user", "assistant"]


def test_a_refused_question_is_not_added() -> None:
    chat = _after(CHAT, "Is the lamp on?")
    asking, _ = _asked(chat, "too long")
    assert refused(asking) == chat


def test_a_stopped_answer_stays_as_far_as_it_came() -> None:
    asking, _ = _asked(CHAT, "Count!")
    chat = answered(asking, Answered((Piece("One, "),), None))
    _, question = _asked(chat, "Go on!")
    assert _contents(question) == ["Count!", "One, ", "Go on!"]


def test_an_answer_without_a_word_is_no_turn() -> None:
    asking, _ = _asked(CHAT, "Count!")
    chat = answered(asking, Answered((), None))
    assert (chat.turns, chat.last_question) == ((), "Count!")


def test_reset_forgets_the_conversation_but_not_the_options() -> None:
    chat = _after(CHAT, "/set temperature 0.5", "/system Be brief.", "Is the lamp on?", "/reset")
    _, question = _asked(chat, "Really?")
    assert _contents(question) == ["Be brief.", "Really?"]
    assert question.sampling.temperature == 0.5
    assert chat.last is None


def test_the_system_text_can_be_changed_and_taken_away() -> None:
    chat = _after(CHAT, "/system Be brief.", "/system Be long.")
    assert _contents(_asked(chat, "Hi")[1]) == ["Be long.", "Hi"]
    assert hear(chat, "/system")[1] == Say("Be long.")
    assert _contents(_asked(_after(chat, '/system ""'), "Hi")[1]) == ["Hi"]


def test_options_reach_the_question() -> None:
    chat = _after(CHAT, "/set top-k 4", "/set max-tokens 9")
    _, question = _asked(chat, "Hi")
    assert (question.sampling.top_k, question.max_tokens) == (4, 9)


# -- what leaves the board -----------------------------------------------------------------------


def test_with_always_questions_are_steered_without_asking() -> None:
    assert _asked(CHAT, "Hi")[1].mode == "steered"


def test_with_never_nothing_is_steered_and_a_wish_is_refused() -> None:
    chat = replace(CHAT, policy="never")
    assert _asked(chat, "Hi")[1].mode == "local"
    with pytest.raises(UsageError, match="stay on this device"):
        hear(chat, "/mode steered")


def test_with_ask_the_person_is_asked_and_yes_is_for_one_question() -> None:
    chat, action = hear(CAREFUL, "Hi")
    assert isinstance(action, AskConsent)
    assert "of this question would" in action.text
    chat, question = _asked(chat, "y")
    assert (question.mode, _contents(question)) == ("steered", ["Hi"])
    _, action = hear(answered(chat, ANSWER), "And now?")
    assert isinstance(action, AskConsent)
    assert "and of the conversation before it" in action.text


def test_always_and_no_hold_for_the_conversation() -> None:
    for word, mode in (("always", "steered"), ("n", "local"), ("", "local"), ("what?", "local")):
        chat, question = _asked(CAREFUL, "Hi", word)
        assert question.mode == mode
        assert _asked(answered(chat, ANSWER), "And now?")[1].mode == mode


@pytest.mark.parametrize("command", ["/reset", "/mode local"])
def test_what_was_allowed_ends_with_the_conversation_or_a_new_mode(command: str) -> None:
    chat = _after(CAREFUL, "Hi", "always", command)
    assert chat.consent is None


def test_a_mode_that_was_chosen_needs_no_question() -> None:
    assert _asked(_after(CAREFUL, "/mode steered"), "Hi")[1].mode == "steered"
    assert _asked(_after(CAREFUL, "/mode local"), "Hi")[1].mode == "local"


def test_from_a_pipe_nobody_is_asked_and_one_line_says_so() -> None:
    chat, action = hear(replace(CAREFUL, can_ask_person=False), "Hi")
    assert isinstance(action, Ask)
    assert (action.question.mode, "/mode steered" in action.note) == ("local", True)
    _, action = hear(answered(chat, ANSWER), "And now?")
    assert isinstance(action, Ask)
    assert action.note == ""


def test_without_a_large_model_nobody_is_asked() -> None:
    chat = replace(CAREFUL, has_large=False)
    assert _asked(chat, "Hi")[1].mode == "local"
    with pytest.raises(UsageError, match="no large model"):
        hear(chat, "/mode steered")


def test_the_mode_can_be_looked_up() -> None:
    said = [hear(chat, "/mode")[1] for chat in (CHAT, CAREFUL, _after(CHAT, "/mode local"))]
    assert [one.text.split(":")[0] for one in said if isinstance(one, Say)] == [
        "steered",
        "not chosen",
        "local",
    ]
    with pytest.raises(UsageError, match="there are local and steered"):
        hear(CHAT, "/mode fast")


def test_ctrl_c_at_a_question_to_the_person_drops_what_was_asked() -> None:
    chat, _ = hear(CAREFUL, "Hi")
    assert cancelled(chat) == CAREFUL


# -- teaching, saving, ending ----------------------------------------------------------------------


def test_the_last_question_is_taught_in_one_line_or_when_asked() -> None:
    chat = _after(CHAT, "Good night")
    assert hear(chat, "/teach Sleep well.")[1] == Teach("Good night", "Sleep well.")
    waiting, action = hear(chat, "/teach")
    assert action == AskLesson("Good night")
    assert hear(waiting, "/all lights off/")[1] == Teach("Good night", "/all lights off/")
    assert hear(waiting, " ") == (chat, Say("nothing taught"))


def test_an_answer_of_no_words_can_be_bettered_too() -> None:
    asking, _ = _asked(_after(CHAT, "Hi"), "Good night")
    chat = answered(asking, Answered((), SUMMARY))
    assert hear(chat, "/teach Sleep well.")[1] == Teach("Good night", "Sleep well.")


@pytest.mark.parametrize("line", ["/teach", "/teach a", "/why", "/save talk.json"])
def test_before_the_first_answer_there_is_nothing_to_do_with_it(line: str) -> None:
    with pytest.raises(UsageError, match="there is no"):
        hear(CHAT, line)


def test_the_conversation_is_saved_with_its_system_text() -> None:
    chat = _after(CHAT, "/system Be brief.", "Hi")
    _, action = hear(chat, "/save my talk.json")
    assert isinstance(action, Save)
    assert action.path == "my talk.json"
    assert [one.role for one in action.messages] == ["system", "user", "assistant"]
    with pytest.raises(UsageError, match="name a file"):
        hear(chat, "/save")


@pytest.mark.parametrize(
    ("line", "action"),
    [("/quit", Quit()), ("/help", Show("help")), ("/set", Show("options")), (" ", None)],
)
def test_other_commands(line: str, action: Action | None) -> None:
    assert hear(CHAT, line) == (CHAT, action)


def test_a_cut_answer_says_what_lets_it_be_longer() -> None:
    cut = msgspec.structs.replace(SUMMARY, ended="length", tokens=5)
    assert cut_off_note(CHAT, SUMMARY) == ""
    assert "/set max-tokens 10" in cut_off_note(CHAT, cut)
    assert "/reset" in cut_off_note(_after(CHAT, "/set max-tokens 9"), cut)


def test_a_refusal_says_that_nothing_is_lost_where_something_could_be() -> None:
    assert refusal_note(CHAT) == ""
    assert "/reset" in refusal_note(_after(CHAT, "Hi"))


LINES = st.one_of(
    st.text(max_size=8),
    st.sampled_from(["y", "n", "always", *(f"/{name}" for name in COMMANDS)]),
    st.builds("/{} {}".format, st.sampled_from([*COMMANDS]), st.text(max_size=8)),
)


@given(st.lists(LINES), st.sampled_from(["never", "ask", "always"]), st.booleans(), st.booleans())
def test_whatever_is_typed_turns_alternate_and_consent_is_respected(
    lines: list[str], policy: str, has_large: bool, can_ask: bool
) -> None:
    chat = Conversation(policy, has_large, can_ask)  # type: ignore[arg-type]
    for line in lines:
        awaited = chat.awaits
        is_allowed = policy == "always" or "steered" in (chat.wanted, chat.consent)
        try:
            chat, action = hear(chat, line)
        except UsageError:
            assert chat.awaits == awaited
            continue
        if isinstance(action, Ask):
            is_steered = action.question.mode == "steered"
            assert not is_steered or policy != "never"
            assert not is_steered or is_allowed or awaited == "consent"
            chat = answered(chat, ANSWER)
        roles = [turn.role for turn in chat.turns]
        assert roles == ["user", "assistant"] * (len(roles) // 2)

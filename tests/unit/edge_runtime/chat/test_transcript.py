import json

from edge_runtime.chat.transcript import to_json, to_text
from fedpt.chat import ChatMessage

MESSAGES = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="Grüße?"),
    ChatMessage(role="assistant", content="Hi.\nYou!"),
]


def test_a_program_reads_messages_as_other_programs_send_them() -> None:
    assert json.loads(to_json(MESSAGES))["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Grüße?"},
        {"role": "assistant", "content": "Hi.\nYou!"},
    ]


def test_a_person_reads_who_said_what() -> None:
    text = to_text(MESSAGES).decode()
    assert text == "System: Be brief.\n\nYou: Grüße?\n\nAssistant: Hi.\nYou!\n"

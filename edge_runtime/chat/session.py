"""The loop of a chat: read a line, let `conversation` decide, do it, show it."""

from pathlib import Path
from typing import Final, assert_never

from edge_runtime.answer_options import option_rows
from edge_runtime.asking import Source, ended
from edge_runtime.chat import conversation
from edge_runtime.chat.conversation import Answered, Conversation
from edge_runtime.chat.line_editor import Lines
from edge_runtime.chat.screen import ChatScreen
from edge_runtime.chat.transcript import to_json, to_text
from edge_runtime.lessons import Lesson, learnt_note
from edge_runtime.question import AnswerSummary, Piece
from edge_runtime.why import fallback_note
from fedpt.errors import FedptError, UsageError
from fedpt.files import write_bytes

_PROMPTS: Final = {
    "line": "> ",
    "consent": "Send them? [y]es, [n]o, [a]lways in this conversation: ",
    "lesson": "better answer: ",
}


class ChatSession:
    """One chat, from its first line to its last."""

    def __init__(
        self, source: Source, lines: Lines, screen: ChatScreen, chat: Conversation
    ) -> None:
        """Make it.

        Args:
            source: Who answers.
            lines: What the person, or the pipe, says.
            screen: What shows it.
            chat: The conversation as it begins.
        """
        self._source = source
        self._lines = lines
        self._screen = screen
        self._chat = chat
        self._saved: set[Path] = set()

    def run(self) -> None:
        """Talk until the person, or the pipe, ends.

        Raises:
            FedptError: The lines come from a pipe, and one of them could not be done: a script
                must not go on as if it had been.
            KeyboardInterrupt: Ctrl-C, without a terminal.
        """
        is_going_on = True
        while is_going_on:
            try:
                is_going_on = self._next()
            except EOFError:
                self._screen.interrupted()
                return
            except KeyboardInterrupt:
                if not self._chat.can_ask_person:
                    raise
                self._chat = conversation.cancelled(self._chat)
                self._screen.interrupted()
            except FedptError as error:
                if not self._chat.can_ask_person:
                    raise
                self._screen.complain(str(error))

    def _next(self) -> bool:
        """One line and what follows from it; whether to go on."""
        awaits = self._chat.awaits
        line = self._lines.read(_PROMPTS[awaits], is_remembered=awaits == "line")
        self._chat, action = conversation.hear(self._chat, line)
        match action:
            case conversation.Quit():
                return False
            case conversation.Ask():
                self._ask(action)
            case conversation.AskConsent(text):
                self._screen.note(text)
            case conversation.AskLesson(question):
                self._screen.note(f"to the question: {question}")
            case conversation.Teach(question, answer):
                learnt = self._source.teach(Lesson(question, answer))
                self._screen.note(learnt_note(learnt))
            case conversation.Save():
                self._save(action)
            case conversation.Say(text):
                self._screen.note(text)
            case conversation.Show(what):
                self._show(what)
            case None:
                pass
            case _:
                assert_never(action)
        return True

    def _ask(self, ask: conversation.Ask) -> None:
        if ask.note:
            self._screen.note(ask.note)
        pieces: list[Piece] = []
        summary: AnswerSummary | None = None
        try:
            with (
                self._screen.answering() as show,
                ended(self._source.answer(ask.question)) as items,
            ):
                for item in items:
                    if isinstance(item, Piece):
                        pieces.append(item)
                        show(item)
                    elif isinstance(item, AnswerSummary):
                        summary = item
        except FedptError as error:
            if not self._chat.can_ask_person:
                raise
            self._refuse(error)
            return
        except KeyboardInterrupt:
            if not self._chat.can_ask_person:
                raise
            self._screen.note("[stopped]")
        self._chat = conversation.answered(self._chat, Answered(tuple(pieces), summary))
        if summary is not None:
            self._tell(summary)
        self._screen.end_of_turn()

    def _refuse(self, error: FedptError) -> None:
        self._screen.complain(str(error))
        if hint := conversation.refusal_note(self._chat):
            self._screen.note(hint)
        self._screen.end_of_turn()
        self._chat = conversation.refused(self._chat)

    def _tell(self, summary: AnswerSummary) -> None:
        """What a person must know of an answer without asking."""
        for note in (fallback_note(summary), conversation.cut_off_note(self._chat, summary)):
            if note:
                self._screen.note(note)

    def _show(self, what: str) -> None:
        if what == "help":
            self._screen.help()
        elif what == "options":
            self._screen.rows(option_rows(self._chat.options))
        elif self._chat.last is not None:
            self._screen.why(self._chat.last)

    def _save(self, save: conversation.Save) -> None:
        path = Path(save.path).expanduser().absolute()
        if path.exists() and path not in self._saved:
            raise UsageError(f"{path} is there already: choose another name")
        to_bytes = to_json if path.suffix == ".json" else to_text
        write_bytes(path, to_bytes(save.messages), mode=0o600)
        self._saved.add(path)
        self._screen.note(f"saved: {path}")

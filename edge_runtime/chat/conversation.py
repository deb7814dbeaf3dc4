"""A chat as a state machine: lines and answers in, what to do out. Pure.

```
line ──hear──► Ask ──answered──► line          a refused or stopped question leaves the
  │             ▲                  ▲           conversation as it was
  ├─► AskConsent┴──hear────────────┤
  └─► AskLesson ───hear──► Teach ──┘
```
`hear` takes a line in whatever state the chat is; `cancelled` goes back from a question to the
person. `edge_runtime.chat.session` does what comes out.
"""

from dataclasses import dataclass, replace
from typing import Final, Literal, assert_never

from edge_runtime.answer_options import PLAIN_OPTIONS, AnswerOptions, with_option
from edge_runtime.chat.commands import Command, Said, parse
from edge_runtime.consent import SharePolicy, choose_mode, must_ask
from edge_runtime.question import AnswerSummary, Mode, Piece, Question
from fedpt.chat import ChatMessage
from fedpt.errors import UsageError

_CONSENT: Final = (
    "The large model can help; the tokens of this question{before} would go to the coordinator."
)
_ALONE: Final = "the board answers alone: /mode steered lets the large model help"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as it was shown."""

    pieces: tuple[Piece, ...]
    summary: AnswerSummary | None
    """None: it was stopped."""

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(piece.text for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Everything that a chat knows."""

    policy: SharePolicy
    has_large: bool
    can_ask_person: bool
    """False: the lines come from a pipe, and nobody is there to ask."""
    wanted: Mode | None = None
    """What `--mode` or `/mode` says."""
    consent: Mode | None = None
    """What the person said to being asked, for the rest of this conversation."""
    options: AnswerOptions = PLAIN_OPTIONS
    turns: tuple[ChatMessage, ...] = ()
    last: Answered | None = None
    last_question: str = ""
    """What it answered."""
    awaits: Literal["line", "consent", "lesson"] = "line"
    pending: str = ""
    """The question that is being asked, or that consent is awaited for."""
    told: str = ""
    """The last note on modes: each is told once."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Ask the assistant; then call `answered`, `stopped` or `refused`."""

    question: Question
    note: str = ""


@dataclass(frozen=True, slots=True)
class AskConsent:
    """Ask the person, and `hear` the reply."""

    text: str


@dataclass(frozen=True, slots=True)
class AskLesson:
    """Ask the person for the better answer, and `hear` it."""

    question: str


@dataclass(frozen=True, slots=True)
class Teach:
    """Give the device a lesson."""

    question: str
    answer: str


@dataclass(frozen=True, slots=True)
class Save:
    """Write the conversation to a file."""

    path: str
    messages: tuple[ChatMessage, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """Tell something that went well."""

    text: str


@dataclass(frozen=True, slots=True)
class Show:
    """Show more than a line."""

    what: Literal["help", "why", "options"]


@dataclass(frozen=True, slots=True)
class Quit:
    """End."""


Action = Ask | AskConsent | AskLesson | Teach | Save | Say | Show | Quit


def hear(chat: Conversation, line: str) -> tuple[Conversation, Action | None]:
    """A line from the person, and what follows from it.

    Raises:
        UsageError: It cannot be done; the conversation is as it was.
    """
    match chat.awaits:
        case "consent":
            return _hear_consent(chat, line)
        case "lesson":
            return _hear_lesson(chat, line)
        case "line":
            match parse(line):
                case None:
                    return chat, None
                case Said(text):
                    return _hear_question(chat, text)
                case Command(name, rest):
                    return _hear_command(chat, name, rest)
        case _:
            assert_never(chat.awaits)


def answered(chat: Conversation, answer: Answered) -> Conversation:
    """The question has its answer; one without any text is no turn of a conversation."""
    if not answer.text.strip():
        return replace(chat, last_question=chat.pending, pending="", last=answer)
    turns = (
        *chat.turns,
        ChatMessage(role="user", content=chat.pending),
        ChatMessage(role="assistant", content=answer.text),
    )
    chat = replace(chat, last_question=chat.pending, pending="")
    return replace(chat, turns=turns, last=answer)


def refused(chat: Conversation) -> Conversation:
    """The question could not be answered: as if it had never been asked."""
    return replace(chat, pending="")


def cancelled(chat: Conversation) -> Conversation:
    """The person answers nothing: back to the next line."""
    return replace(chat, awaits="line", pending="")


def cut_off_note(chat: Conversation, summary: AnswerSummary) -> str:
    """What to do about an answer that was cut off; empty: it was not."""
    if summary.ended != "length":
        return ""
    limit = chat.options.max_tokens
    if limit is not None and summary.tokens < limit:
        return f"[cut off after {summary.tokens} tokens, the context is full: /reset begins anew]"
    return f"[cut off after {summary.tokens} tokens: /set max-tokens {2 * summary.tokens} for more]"


def refusal_note(chat: Conversation) -> str:
    """What to do about a question that was refused."""
    if not chat.turns:
        return ""
    return "the question was not added, the conversation is as it was; /reset begins a new one"


def _hear_question(chat: Conversation, text: str) -> tuple[Conversation, Action]:
    wanted = chat.wanted or chat.consent
    if must_ask(chat.policy, wanted, has_large=chat.has_large) and chat.can_ask_person:
        before = " and of the conversation before it" if chat.turns else ""
        consenting = replace(chat, awaits="consent", pending=text)
        return consenting, AskConsent(_CONSENT.format(before=before))
    return _ask(chat, text, wanted)


def _hear_consent(chat: Conversation, line: str) -> tuple[Conversation, Action]:
    """Yes is for this question, no and always for the conversation."""
    word = line.strip().lower()
    asking = replace(chat, awaits="line")
    if word in ("a", "always"):
        return _ask(replace(asking, consent="steered"), chat.pending, "steered")
    if word in ("y", "yes"):
        return _ask(asking, chat.pending, "steered")
    chat, action = _ask(replace(asking, consent="local"), chat.pending, "local")
    return replace(chat, told=_ALONE), replace(action, note=_ALONE)


def _ask(chat: Conversation, text: str, wanted: Mode | None) -> tuple[Conversation, Ask]:
    mode, note = choose_mode(chat.policy, wanted, has_large=chat.has_large)
    if must_ask(chat.policy, wanted, has_large=chat.has_large):
        note = _ALONE
    options = chat.options
    question = Question(
        (*_scene(chat), *chat.turns, ChatMessage(role="user", content=text)),
        mode=mode,
        max_tokens=options.max_tokens,
        sampling=options.sampling,
        stop=options.stop,
    )
    ask = Ask(question, note if note != chat.told else "")
    return replace(chat, pending=text, told=note), ask


def _hear_lesson(chat: Conversation, line: str) -> tuple[Conversation, Action]:
    chat = replace(chat, awaits="line")
    if not line.strip():
        return chat, Say("nothing taught")
    return chat, Teach(chat.last_question, line.strip())


def _hear_command(chat: Conversation, name: str, rest: str) -> tuple[Conversation, Action]:
    match name:
        case "mode":
            return _hear_mode(chat, rest)
        case "why":
            return _require_last(chat), Show("why")
        case "teach":
            return _hear_teach(chat, rest)
        case "reset":
            anew = replace(chat, turns=(), last=None, last_question="", consent=None, told="")
            return anew, Say("a new conversation")
        case "system":
            return _hear_system(chat, rest)
        case "set":
            options = with_option(chat.options, rest) if rest else chat.options
            return replace(chat, options=options), Show("options")
        case "save":
            return chat, _save(chat, rest)
        case "quit":
            return chat, Quit()
        case _:
            return chat, Show("help")


def _hear_teach(chat: Conversation, rest: str) -> tuple[Conversation, Action]:
    if not chat.last_question:
        raise UsageError("there is no answer yet that could be better")
    if rest:
        return chat, Teach(chat.last_question, rest)
    return replace(chat, awaits="lesson"), AskLesson(chat.last_question)


def _hear_mode(chat: Conversation, rest: str) -> tuple[Conversation, Action]:
    match rest.lower():
        case "":
            return chat, Say(_mode_now(chat))
        case "local" | "steered" as wanted:
            _, why_not = choose_mode(chat.policy, wanted, has_large=chat.has_large)
            if why_not:
                raise UsageError(why_not)
            chat = replace(chat, wanted=wanted, consent=None, told="")
            return chat, Say(_mode_now(chat))
        case _:
            raise UsageError(f"no mode {rest!r}: there are local and steered")


def _mode_now(chat: Conversation) -> str:
    wanted = chat.wanted or chat.consent
    if must_ask(chat.policy, wanted, has_large=chat.has_large) and chat.can_ask_person:
        return "not chosen: you are asked before a question's tokens go to the coordinator"
    mode, why = choose_mode(chat.policy, wanted, has_large=chat.has_large)
    if mode == "steered":
        return "steered: the large model helps, where it answers"
    return f"local: the board alone, nothing leaves it{f' ({why})' if why else ''}"


def _hear_system(chat: Conversation, rest: str) -> tuple[Conversation, Action]:
    if not rest:
        return chat, Say(chat.options.system or "none here: the device's own, if it has one")
    system = rest.strip('"') if rest.startswith('"') else rest
    chat = replace(chat, options=replace(chat.options, system=system))
    return chat, Say("set; it holds from the next question on" if system else "taken away")


def _save(chat: Conversation, path: str) -> Save:
    if not path:
        raise UsageError("name a file: /save talk.json or /save talk.txt")
    if not chat.turns:
        raise UsageError("there is no conversation to save yet")
    return Save(path, (*_scene(chat), *chat.turns))


def _scene(chat: Conversation) -> tuple[ChatMessage, ...]:
    system = chat.options.system
    return (ChatMessage(role="system", content=system),) if system else ()


def _require_last(chat: Conversation) -> Conversation:
    if chat.last is None:
        raise UsageError("there is no answer yet")
    return chat

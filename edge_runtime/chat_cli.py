"""`fedpt chat`: a conversation with the assistant on a terminal."""

import sys
from contextlib import ExitStack
from typing import Annotated

import typer

from edge_runtime.ask_options import (
    Adapter,
    Config,
    Large,
    MaxTokens,
    MinP,
    RepetitionPenalty,
    Seed,
    Small,
    Stop,
    System,
    Temperature,
    TopK,
    TopP,
    WantedMode,
    require_characters,
    stops_of,
)


def chat(
    mode: WantedMode = None,
    config: Config = None,
    small: Small = None,
    adapter: Adapter = None,
    large: Large = None,
    system: System = "",
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    top_k: TopK = 0,
    min_p: MinP = 0.0,
    repetition_penalty: RepetitionPenalty = 1.0,
    seed: Seed = 0,
    stop: Stop = None,
    history: Annotated[
        bool, typer.Option(help="Keep what you type for the arrow keys of later chats.")
    ] = True,
) -> None:
    """Talk with the assistant; /help lists what else can be typed.

    Ctrl-C stops an answer, Ctrl-D ends. Without a terminal it answers line by line.

    Examples:
      fedpt chat --config device.toml
      fedpt chat --small small.gguf --adapter adapter.gguf --large large.gguf --temperature 0.7
    """
    from edge_runtime.answer_options import AnswerOptions, sampling_of
    from edge_runtime.asking import Models, open_source
    from edge_runtime.chat.conversation import Conversation
    from edge_runtime.chat.line_editor import PipeLines, TerminalLines, history_file
    from edge_runtime.chat.screen import ChatScreen
    from edge_runtime.chat.session import ChatSession
    from fedpt.decoding.sampling import Sampling

    sampling = sampling_of(
        Sampling(
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
        )
    )
    options = AnswerOptions(require_characters(system), sampling, max_tokens, stops_of(stop))
    is_person = sys.stdin.isatty() and sys.stdout.isatty()
    lines = TerminalLines(history_file() if history else None) if is_person else PipeLines()
    screen = ChatScreen()
    with ExitStack() as stack:
        source = open_source(stack, config, Models(small, adapter, large) if small else None)
        if source.note:
            screen.note(source.note)
        screen.welcome(source.name)
        begun = Conversation(
            source.policy, source.has_large, is_person, wanted=mode, options=options
        )
        ChatSession(source, lines, screen, begun).run()

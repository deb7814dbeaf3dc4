"""Choosing the large model's back end by the settings, and making sure of its vocabulary."""

import logging

from coordinator.settings import BackEndSettings, CoordinatorSettings
from coordinator.worker.backends.llama_server_large import LlamaServerLarge
from coordinator.worker.backends.model_server import ModelServer
from coordinator.worker.backends.openai_large import OpenAiLarge
from coordinator.worker.backends.ports import Large, Scorer
from coordinator.worker.backends.remote_texts import RemoteTexts
from coordinator.worker.backends.token_bytes import TokenBytes
from coordinator.worker.backends.vllm_large import VllmLarge
from coordinator.worker.backends.vocabularies import (
    Texts,
    require_same_texts,
    vocabulary_of_folder,
)
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.errors import FedptError, LargeModelError
from fedpt.vocabulary import require_same_vocabulary

_logger = logging.getLogger(__name__)


def open_large(settings: CoordinatorSettings, *, context_tokens: int) -> Large:
    """Load the large model, or find the server that has it.

    Args:
        settings: The coordinator's.
        context_tokens: Room for texts, all conversations together.

    Raises:
        ModelFileError: A model's file is missing or damaged.
        VocabularyMismatchError: Small and large do not share their vocabulary.
        LargeModelError: The server cannot be reached, or refuses what will be asked of it.
        SettingsError: Its key cannot be read.
    """
    back_end = settings.worker.large
    match back_end.kind:
        case "llama.cpp":
            return _in_llama(settings, context_tokens)
        case "transformers":
            return _in_transformers(settings)
        case "vllm" | "llama-server" | "openai":
            with LlamaModel(settings.small, vocabulary_only=True) as small:
                return _in_server(back_end, small)


def _in_llama(settings: CoordinatorSettings, context_tokens: int) -> Large:
    model = LlamaModel(settings.large)
    context = LlamaContext(
        model,
        tokens=context_tokens,
        sequences=settings.worker.sessions,
        threads=settings.threads,
    )

    def close() -> None:
        context.close()
        model.close()

    return Large(model.file.name, model.vocabulary, context, gives_whole_rows=True, close=close)


def _in_transformers(settings: CoordinatorSettings) -> Large:
    from coordinator.worker.backends.transformers_large import TransformersTexts

    folder = settings.worker.large.path
    assert folder is not None  # the settings were validated
    with LlamaModel(settings.small, vocabulary_only=True) as small:
        vocabulary = small.vocabulary
    require_same_vocabulary(vocabulary, vocabulary_of_folder(folder))
    context = TransformersTexts(
        folder,
        device_map=settings.worker.large.device_map,
        size=len(vocabulary.tokens),
        threads=settings.threads,
    )
    return Large(folder.name, vocabulary, context, gives_whole_rows=True, close=context.close)


def _in_server(back_end: BackEndSettings, small: LlamaModel) -> Large:
    tokens = TokenBytes(small)
    server = ModelServer(back_end)
    scorer, texts = _scorer(back_end, server, small, tokens)
    try:
        scorer.rows([small.end_token], 1, 0)  # a wrong key, model or `top` shows now
        if back_end.tokenizer is not None:
            require_same_vocabulary(small.vocabulary, vocabulary_of_folder(back_end.tokenizer))
        else:
            _look_at_vocabulary(texts, tokens, server.url)
    except FedptError:
        server.close()
        raise
    context = RemoteTexts(scorer)

    def close() -> None:
        context.close()
        server.close()

    name = back_end.model or server.url
    return Large(
        name,
        small.vocabulary,
        context,
        gives_whole_rows=False,
        close=close,
        is_approximate=back_end.kind == "openai",
    )


def _scorer(
    back_end: BackEndSettings, server: ModelServer, small: LlamaModel, tokens: TokenBytes
) -> tuple[Scorer, Texts | None]:
    """What asks the server, and its own way from tokens to text, if it has one."""
    size = len(tokens.pieces)
    match back_end.kind:
        case "vllm":
            vllm = VllmLarge(server, back_end, size=size)
            return vllm, vllm.texts
        case "llama-server":
            llama = LlamaServerLarge(server, back_end, size=size, letter=tokens.letter())
            return llama, llama.texts
        case _:
            _logger.warning("the large model's rows are approximate: %s", server.url)
            begin, end = small.begin_token, small.end_token
            return OpenAiLarge(server, back_end, tokens, begin_token=begin, end_token=end), None


def _look_at_vocabulary(texts: Texts | None, tokens: TokenBytes, url: str) -> None:
    """Where nobody can tell, say so once."""
    advice = "set worker.large.tokenizer to a folder with its tokenizer.json"
    if texts is None:
        _logger.warning("%s tells nothing of its vocabulary; %s to have it checked", url, advice)
        return
    try:
        count = require_same_texts(texts, tokens, server=url)
    except LargeModelError as error:
        _logger.warning("the vocabulary of %s is not checked (%s); %s", url, error, advice)
        return
    _logger.info("%s of %s tokens are the same in %s", count, len(tokens.pieces), url)

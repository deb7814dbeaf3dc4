"""A worker's models: the large one, and the small one for answers that it steers itself."""

import logging
from pathlib import Path
from typing import Self

from coordinator.settings import CoordinatorSettings
from coordinator.worker.answers import ANTIEXPERT, EXPERT, LARGE, ROOM_FOR_DRAFTS
from coordinator.worker.backends.opening import open_large
from coordinator.worker.batching import Batcher, Context
from fedpt.drivers.llama import LlamaContext, LlamaModel
from fedpt.errors import FedptError, NotServedError
from fedpt.ids import Sha256
from fedpt.vocabulary import require_same_vocabulary

_logger = logging.getLogger(__name__)


class WorkerModels:
    """Owned by the thread that steps the batcher."""

    def __init__(self, settings: CoordinatorSettings) -> None:
        """Load them.

        Raises:
            ModelFileError: The large model is missing or damaged.
            VocabularyMismatchError: It is elsewhere, and has another vocabulary than the small one.
            SettingsError: The key of the server that has it cannot be read.
        """
        self._settings = settings
        worker = settings.worker
        self._context_tokens = worker.context_tokens + worker.sessions * ROOM_FOR_DRAFTS
        self.large = open_large(settings, context_tokens=self._context_tokens)
        self.vocabulary: Sha256 = self.large.vocabulary.sha256
        """The large model's."""
        self.small = self._small()
        self._contexts: dict[str, LlamaContext] = {}
        if self.small is not None:
            self._contexts[ANTIEXPERT] = self._context(self.small)
        contexts: dict[str, Context] = {LARGE: self.large.context, **self._contexts}
        self.batcher = Batcher(contexts)
        self.adapter = ""
        """What the expert answers with; empty: answers cannot be steered here."""

    @property
    def vocabulary_size(self) -> int:
        """Tokens in a row of logits."""
        return len(self.large.vocabulary.tokens)

    def is_end(self, token: int) -> bool:
        """Whether an answer ends at this token: by the small model, as on a board."""
        assert self.small is not None  # answers are steered here
        return self.small.is_end(token)

    def use_adapter(self, adapter: str, path: Path) -> None:
        """Steer answers with this adapter from now on.

        Raises:
            ArtifactError: It is damaged or for another base; the old one stays in use.
        """
        if self.small is None:
            return
        new = self._context(self.small, path)
        self.batcher.replace(EXPERT, new)
        if old := self._contexts.pop(EXPERT, None):
            old.close()
        self._contexts[EXPERT] = new
        self.adapter = adapter

    def require_adapter(self, adapter: str) -> None:
        """Refuse to steer with another adapter than a device's own.

        Raises:
            NotServedError: Says what is here.
        """
        if self.small is None or adapter != self.adapter:
            here = f"adapter {self.adapter[:12]}" if self.adapter else "no adapter"
            raise NotServedError(f"this worker steers with {here}, not with {adapter[:12]}")

    def close(self) -> None:
        """Free everything."""
        for context in self._contexts.values():
            context.close()
        if self.small is not None:
            self.small.close()
        self.large.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _context(self, model: LlamaModel, adapter: Path | None = None) -> LlamaContext:
        return LlamaContext(
            model,
            tokens=self._context_tokens,
            sequences=self._settings.worker.sessions,
            threads=self._settings.threads,
            adapter=adapter,
        )

    def _small(self) -> LlamaModel | None:
        """Without it, devices combine logits themselves."""
        if not self._settings.worker.steers_answers:
            return None
        if not self.large.gives_whole_rows:  # its doubt must be told, and a device can tell it
            _logger.info("answers are not steered here: the server tells no whole rows")
            return None
        try:
            small = LlamaModel(self._settings.small)
            require_same_vocabulary(small.vocabulary, self.large.vocabulary)
        except FedptError as error:
            _logger.warning("answers are not steered here: %s", error)
            return None
        return small

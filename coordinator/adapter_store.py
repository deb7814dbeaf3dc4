"""The federation's adapters in the coordinator's blob store: the first one, and the average."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from coordinator.aggregation import federated_average
from coordinator.settings import AdapterSettings
from coordinator.state import UpdateAccepted
from fedpt.adapters import (
    Adapter,
    AdapterManifest,
    adapter_from_bytes,
    adapter_to_bytes,
    initial_adapter,
    module_kinds,
    require_averageable,
    require_base,
)
from fedpt.blobs import BlobStore
from fedpt.ids import Sha256


class AdapterStore:
    """Adapters by the sha256 of their blobs."""

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs

    def path(self, sha256: str) -> Path:
        """The blob's file."""
        return self._blobs.path(sha256)

    def put_first(
        self,
        settings: AdapterSettings,
        shapes: Mapping[str, tuple[int, int]],
        base_weights: Sha256,
        *,
        seed: int,
    ) -> str:
        """An adapter that changes nothing yet, for all devices to start from.

        Args:
            settings: Rank, scale, and which layers; unset: all of `shapes`.
            shapes: The model's linear layers, `converters.tensor_names.linear_shapes`.
            base_weights: Of the small model.
            seed: Where its values come from.

        Raises:
            AdapterError: The model has no layers that are called like one of the settings' targets.
            StorageError: It could not be written.
        """
        manifest = AdapterManifest(
            base_weights=base_weights,
            rank=settings.rank,
            alpha=settings.alpha,
            target_modules=settings.target_modules or module_kinds(shapes),
        )
        return self._put(initial_adapter(shapes, manifest, np.random.default_rng(seed)))

    def put_average(
        self, updates: Iterable[UpdateAccepted], *, start: str, most_examples: int
    ) -> str:
        """The average of a round's updates, none weighing more than `most_examples`.

        Args:
            updates: Of whatever ranks.
            start: The adapter that the round started from, whose form the average has.
            most_examples: Of one device.

        Raises:
            BlobError: An update, or the start, is gone.
            StorageError: It could not be written.
        """
        weighted = [
            (self.get(update.update), min(update.example_count, most_examples))
            for update in updates
        ]
        return self._put(federated_average(weighted, self.get(start)))

    def get(self, sha256: str) -> Adapter:
        """An adapter that is here.

        Raises:
            BlobError: It is not, or was damaged on disk.
        """
        return adapter_from_bytes(self._blobs.get(sha256))

    def require_base(self, sha256: str, base_weights: Sha256) -> None:
        """Refuse to go on with a run that was begun with another small model.

        Raises:
            WrongBaseError: Names both.
            BlobError: The adapter is gone.
        """
        stated = self.get(sha256).manifest.base_weights
        require_base("this run's adapter", stated, base_weights)

    def require_update(self, content: bytes, *, base: str) -> None:
        """Refuse an update that cannot be averaged with others that started from `base`.

        Raises:
            AdapterError: It is damaged, has wild values, a higher rank or another form.
            WrongBaseError: It is for another model.
        """
        require_averageable(adapter_from_bytes(content), self.get(base))

    def _put(self, adapter: Adapter) -> str:
        return self._blobs.put(adapter_to_bytes(adapter)).sha256

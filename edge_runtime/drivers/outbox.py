"""Finished updates that wait for the coordinator's receipt, as files.

An update is here before it is offered and stays until its receipt has come, so neither a restart
nor a lost message costs the training that it took.
"""

from pathlib import Path

from fedpt.errors import MalformedMessageError
from fedpt.files import write_bytes
from fedpt.wire.codec import decode, encode
from fedpt.wire.messages import RoundAnnouncement, UpdateOffer, UpdateReceipt


class Outbox:
    """One file an update, named after round and starting adapter; the receipt beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, offer: UpdateOffer) -> None:
        """Keep an update's offer; its blob is in the blob store.

        Raises:
            StorageError: It could not be written.
        """
        path = self._path(offer.run, offer.round, offer.base)
        write_bytes(path, encode(offer))
        for old in self._folder.glob("*"):  # what was made for other rounds is done with
            if old.stem != path.stem:
                old.unlink(missing_ok=True)

    def settle(self, offer: UpdateOffer, receipt: UpdateReceipt) -> None:
        """Keep the coordinator's last word.

        Raises:
            StorageError: It could not be written.
        """
        path = self._path(offer.run, offer.round, offer.base)
        write_bytes(path.with_suffix(".receipt"), encode(receipt))

    def find(self, announcement: RoundAnnouncement) -> UpdateOffer | None:
        """The update that we made for this announcement's round and adapter, if any."""
        try:
            return decode(self._path_for(announcement).read_bytes(), UpdateOffer)
        except (OSError, MalformedMessageError):
            return None

    def is_settled(self, announcement: RoundAnnouncement) -> bool:
        """Whether that update was accepted; one that was refused is offered again."""
        try:
            content = self._path_for(announcement).with_suffix(".receipt").read_bytes()
            return decode(content, UpdateReceipt).accepted
        except (OSError, MalformedMessageError):
            return False

    def _path_for(self, announcement: RoundAnnouncement) -> Path:
        return self._path(announcement.run, announcement.round, announcement.adapter.sha256)

    def _path(self, run: str, number: int, base: str) -> Path:
        return self._folder / f"{run}-{number:04}-{base[:16]}.offer"

"""Which keys a device believes: those of the newest keys release, until then those of its bundle.

To start over with other keys by hand: write the trust file, and delete the folder of keys releases.
"""

from pathlib import Path

from edge_runtime.updates.release_store import ReleaseStore
from fedpt.errors import ReleaseError
from fedpt.releases import TRUST_FILE, Trust


def load_trust(store: ReleaseStore, trust_file: Path) -> Trust:
    """The keys.

    Raises:
        ReleaseError: The file is missing or damaged.
    """
    path = store.current_path("keys", TRUST_FILE) or trust_file
    try:
        return Trust.from_json(path.read_bytes())
    except OSError as error:
        raise ReleaseError(f"cannot read the trusted keys {path}: {error.strerror}") from error

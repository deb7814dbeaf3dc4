"""Names in a bundle: who makes it, and who puts it onto a card, mean the same files."""

from typing import Final

NO_CLOUD_FILES: Final = ("user-data", "network-config", "meta-data")
"""What cloud-init reads, in the root of the volume."""

OWN_FOLDER: Final = "fedpt"
"""Everything else of ours, in a folder beside them."""

SUMS: Final = "SHA256SUMS"
TOKEN: Final = "enrolment.token"
EXAMPLES: Final = "examples.jsonl"
"""What the board learns from at first; taken into its store, then wiped."""

TAKEN: Final = (TOKEN, EXAMPLES)
"""Not in the sums: the first boot takes them away, and the next one checks the bundle again."""

IDENTITY: Final = "identity.pem"

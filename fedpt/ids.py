"""Names of things, as types, so that mypy keeps them apart."""

import re
from typing import Final, NewType

DeviceId = NewType("DeviceId", str)
"""A device's name: one topic level, one MQTT client id, one certificate common name."""

FederationId = NewType("FederationId", str)
"""A federation's name: one topic level."""

Sha256 = NewType("Sha256", str)
"""64 lower-case hexadecimal digits."""

NAME_PATTERN: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
"""What a device or a federation may be called: safe as topic level, file name and host name."""

SHA256_PATTERN: Final = r"[0-9a-f]{64}"


def is_name(text: str) -> bool:
    """Whether the text can name a device or a federation."""
    return re.fullmatch(NAME_PATTERN, text) is not None


def is_sha256(text: str) -> bool:
    """Whether the text is a sha256 in our spelling."""
    return re.fullmatch(SHA256_PATTERN, text) is not None

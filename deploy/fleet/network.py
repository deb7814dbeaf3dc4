"""How a board gets onto the network and to its server, checked before it is written down.

A Wi-Fi passphrase is turned into its key at once: what lies on the card opens this one network and
is nobody's password.
"""

import hashlib
import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from fedpt.errors import FleetError, UsageError

_LONGEST_HOST: Final = 253
_LONGEST_SSID_BYTES: Final = 32
_PASSPHRASE: Final = re.compile(r"[\x20-\x7e]{8,63}")
_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")
_HOST_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Wifi:
    """A WPA2/WPA3-personal network."""

    ssid: str
    psk: str
    """64 hexadecimal digits, never the passphrase."""
    country: str
    """Two letters: which channels are allowed."""
    interface: str = "wlan0"
    """By name, not by pattern: netplan's networkd takes no patterns for Wi-Fi."""


@dataclass(frozen=True, slots=True)
class Network:
    """Wired by DHCP always; Wi-Fi if given."""

    wifi: Wifi | None = None


def wifi_from_passphrase(ssid: str, passphrase: str, country: str) -> Wifi:
    """A network by what people know of it; 64 hexadecimal digits count as the key itself.

    Raises:
        FleetError: No network can have such a name, passphrase or country.
    """
    _check_ssid(ssid)
    if not _COUNTRY.fullmatch(country):
        raise FleetError(f"Wi-Fi country {country!r}: two capital letters, as DE or US")
    if _KEY.fullmatch(passphrase):
        return Wifi(ssid, passphrase.lower(), country)
    if not _PASSPHRASE.fullmatch(passphrase):  # which is not shown: it may be nearly right
        raise FleetError(
            f"the passphrase of Wi-Fi {ssid!r} must be 8 to 63 ASCII characters, or its key as 64"
            " hexadecimal digits"
        )
    key = hashlib.pbkdf2_hmac("sha1", passphrase.encode(), ssid.encode(), 4096, 32)
    return Wifi(ssid, key.hex(), country)


def require_server(host: str) -> None:
    """Refuse what is neither an address nor a name that a certificate can hold.

    Raises:
        UsageError: Says so.
    """
    try:
        ip_address(host)
    except ValueError:
        labels = host.lower().split(".")
        if len(host) > _LONGEST_HOST or not all(map(_HOST_LABEL.fullmatch, labels)):
            raise UsageError(
                f"not a server's name or address: {host!r}; as in hub.local or 10.0.0.2, its ports"
                " are --port and --enrolment-port"
            ) from None


def host_name(device: str) -> str:
    """The host name of a device's board.

    Raises:
        FleetError: No host can be called so.
    """
    name = device.lower()
    if not _HOST_LABEL.fullmatch(name):
        raise FleetError(
            f"a board cannot be called {device!r}: letters, digits and inner hyphens only"
        )
    return name


def _check_ssid(ssid: str) -> None:
    try:
        size = len(ssid.encode())
    except UnicodeEncodeError as error:
        raise FleetError(f"Wi-Fi name {ssid!r} is no text") from error
    if not 1 <= size <= _LONGEST_SSID_BYTES:
        raise FleetError(f"Wi-Fi name {ssid!r} has {size} bytes; 1 to {_LONGEST_SSID_BYTES} can be")
    if not ssid.isprintable():
        raise FleetError(f"Wi-Fi name {ssid!r} has characters that nobody sees; check it")

"""cloud-init's NoCloud files: what a board does at its first boot, as three small texts.

No passwords at all: the only account that can log in has SSH keys, or there is none. No secrets
either: the enrolment token lies beside, in a file that install.sh takes away. Nothing is
installed with apt, so a board needs no network for its first boot.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from deploy.fleet.network import Network, host_name
from fedpt.errors import FleetError

_ACCOUNT: Final = "fleet"

_KNOWN_KEYS: Final = frozenset(
    {
        "disable_root", "hostname", "locale", "manage_etc_hosts", "package_update",
        "package_upgrade", "runcmd", "ssh_pwauth", "timezone", "user", "write_files",
    }
)  # fmt: skip
"""cloud-init ignores keys that it does not know; a misspelt one must not go out."""

_SCRIPT: Final = "/var/lib/cloud/scripts/per-boot/fedpt-install"
"""At every boot: `runcmd` runs once only, even if the power is cut in the middle of it."""

_INSTALL: Final = """\
#!/bin/sh
# Installs fedpt from its bundle, on the boot partition or on a second volume, until that is done.
set -eu
for folder in /boot/firmware/fedpt /boot/fedpt; do
  if [ -f "$folder/install.sh" ]; then exec sh "$folder/install.sh" --if-needed; fi
done
for volume in /dev/disk/by-label/CIDATA /dev/disk/by-label/cidata; do
  if [ -e "$volume" ]; then
    mkdir -p /run/fedpt-bundle
    mount -o ro "$volume" /run/fedpt-bundle
    code=0
    sh /run/fedpt-bundle/fedpt/install.sh --if-needed || code=$?
    umount /run/fedpt-bundle
    exit "$code"
  fi
done
if [ -e /usr/local/lib/fedpt/installed ]; then exit 0; fi
echo "fedpt: no bundle on the boot partition, nor a volume called CIDATA" >&2
exit 1
"""

_SSH_OFF: Final = "systemctl disable --now ssh.service ssh.socket || true"


@dataclass(frozen=True, slots=True)
class FirstBoot:
    """What the operator chose for a board's first boot."""

    device: str
    network: Network
    ethernet: str
    """The wired interface, a glob."""
    ssh_keys: tuple[str, ...] = ()
    """Lines as in authorized_keys."""
    timezone: str = "Etc/UTC"


def user_data(first_boot: FirstBoot) -> str:
    """The file `user-data`.

    Raises:
        FleetError: The host's name or an SSH key cannot be.
    """
    keys = [_checked_key(key) for key in first_boot.ssh_keys]
    user: dict[str, Any] = {"name": _ACCOUNT, "lock_passwd": True, "sudo": None}
    if keys:  # without a password sudo can only go without one, too
        user |= {"ssh_authorized_keys": keys, "sudo": "ALL=(ALL) NOPASSWD:ALL"}
    ssh = ["systemctl", "enable", "--now", "ssh"] if keys else ["sh", "-c", _SSH_OFF]
    content: dict[str, Any] = {
        "hostname": host_name(first_boot.device),
        "manage_etc_hosts": True,
        "timezone": first_boot.timezone,
        "locale": "C.UTF-8",  # others would be generated first, which takes a small board a minute
        "disable_root": True,
        "ssh_pwauth": False,
        "user": user,  # singular: plural would take away the image's default groups
        "package_update": False,
        "package_upgrade": False,
        "write_files": [{"path": _SCRIPT, "permissions": "0755", "content": _INSTALL}],
        "runcmd": [ssh, ["sh", _SCRIPT]],
    }
    _require_known(content)
    return "#cloud-config\n" + _as_yaml(content)


def network_config(first_boot: FirstBoot) -> str:
    """The file `network-config`, version 2. No interface holds up the boot."""
    wired: dict[str, Any] = {"dhcp4": True, "optional": True}
    identity = first_boot.ethernet
    if "*" in identity:
        wired["match"] = {"name": identity}
        identity = "wired"
    content: dict[str, Any] = {"version": 2, "ethernets": {identity: wired}}
    if wifi := first_boot.network.wifi:
        wireless = {
            "dhcp4": True,
            "optional": True,
            "regulatory-domain": wifi.country,
            "access-points": {wifi.ssid: {"password": wifi.psk}},
        }
        content["wifis"] = {wifi.interface: wireless}
    return _as_yaml(content)


def meta_data(device: str) -> str:
    """The file `meta-data`. A new instance each time: cloud-init then runs again."""
    name = host_name(device)
    return _as_yaml({"instance-id": f"fedpt-{name}-{secrets.token_hex(8)}", "local-hostname": name})


def _checked_key(line: str) -> str:
    kind, _, rest = line.strip().partition(" ")
    is_known = kind.startswith(("ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"))
    if not is_known or not rest or not line.strip().isprintable():
        raise FleetError(f"{line[:40]!r} is no public SSH key; give the file that ends in .pub")
    return line.strip()


def _require_known(content: Mapping[str, object]) -> None:
    unknown = content.keys() - _KNOWN_KEYS
    if unknown:
        raise FleetError(f"cloud-init does not know {', '.join(sorted(unknown))}")


def _as_yaml(content: Mapping[str, object]) -> str:
    # any SSID is quoted as it must be; one line a value, so that a person can search it
    text: str = yaml.safe_dump(dict(content), sort_keys=False, allow_unicode=True, width=1_000_000)
    return text

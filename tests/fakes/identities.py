"""The certificates of a small fleet, as files."""

import os
import pwd
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fedpt.certificates import Authority, Role, new_key, own_request, read_certificate
from fedpt.settings import BrokerSettings
from fedpt.signing import private_key_to_pem


@dataclass
class Identities:
    """A root, an issuing authority below it, and whoever it vouches for."""

    folder: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        root = Authority.new_root("home", self.now)
        self.issuing = root.new_issuing("home issuing", self.now)
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(root.certificate_pem)

    def write(
        self, name: str, role: Role = "device", *, at: datetime | None = None, hosts: str = ""
    ) -> tuple[Path, Path]:
        """Certificate with its issuer, and key; `at` is when it was issued."""
        key = new_key()
        issued_at = at or self.now
        content = self.issuing.issue(own_request(name, key), role, issued_at, hosts=hosts.split())
        certificate, key_file = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(content)
        key_file.write_bytes(private_key_to_pem(key))
        key_file.chmod(0o600)
        return certificate, key_file

    def revoke(self, *names: str) -> Path:
        """The revocation list with these in it."""
        certificates = [(self.folder / f"{name}.pem").read_bytes() for name in names]
        serials = [read_certificate(one).serial for one in certificates]
        path = self.folder / "crl.pem"
        path.write_bytes(self.issuing.revocation_list(serials, self.now))
        return path

    def broker_lines(self) -> str:
        """Mosquitto's configuration: client certificates only."""
        certificate, key = self.write("broker", "broker", hosts="127.0.0.1 localhost")
        whoever = pwd.getpwuid(os.geteuid()).pw_name  # as root it would give up reading our files
        return (
            f"user {whoever}\n"
            f"cafile {self.ca}\ncertfile {certificate}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true\n"
        )

    def login(self, port: int, name: str) -> BrokerSettings:
        """How `name` reaches the broker."""
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        files = {"ca_file": self.ca, "certificate_file": certificate, "key_file": key}
        return BrokerSettings(port=port, **files)

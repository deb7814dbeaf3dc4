"""What Mosquitto reads to know who may do what: access rules, revoked certificates, names.

Both are read again on SIGHUP (measured on 2.0.11): a device that is connected can then neither
send nor receive at once, and its certificate opens no new connection.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from fedpt.files import write_bytes
from fedpt.ids import FederationId
from fedpt.wire.topics import Topics

ACCESS_FILE: Final = "acl"
REVOCATION_FILE: Final = "crl.pem"
REMOVED_FILE: Final = "removed"
"""Names that are out, one a line: the coordinator stops counting on them."""


def access_rules(
    federation: FederationId, *, workers: Iterable[str] = (), removed: Iterable[str] = ()
) -> str:
    """Mosquitto's ACL file. User name, client id and certificate's common name are the same.

    Patterns hold for everybody; `%c` is the client's own name. Rules of a user come first.
    """
    topics = Topics(federation)
    lines = [
        "# Written by fedpt; changes are lost. Everybody: below the own name only.",
        f"pattern readwrite {topics.device('%c', '#')}",
        f"pattern write {topics.worker_logits('+', '%c')}",
        f"pattern read {topics.from_coordinator}",
        "",
        "user coordinator",
        f"topic readwrite {topics.from_coordinator}",
        f"topic read {topics.device('+', '#')}",
        f"topic write {topics.device('+', 'status')}",
        f"topic write {topics.device('+', 'inbox/#')}",
    ]
    for worker in sorted(workers):
        lines += [
            "",
            f"user {worker}",
            f"topic read {topics.device('+', 'logits')}",
            f"topic read {topics.worker_logits(worker, '+')}",
            f"topic write {topics.device('+', 'inbox/logits')}",
        ]
    for name in sorted(removed):
        lines += ["", f"user {name}", "topic deny #"]
    return "\n".join(lines) + "\n"


def write_broker_files(folder: Path, rules: str, revoked: bytes, removed: Iterable[str]) -> None:
    """Write them where the broker looks; the rules last, for their change is what is watched.

    Raises:
        StorageError: The disk is full.
    """
    write_bytes(folder / REMOVED_FILE, "".join(f"{one}\n" for one in sorted(removed)).encode())
    write_bytes(folder / REVOCATION_FILE, revoked)
    write_bytes(folder / ACCESS_FILE, rules.encode())

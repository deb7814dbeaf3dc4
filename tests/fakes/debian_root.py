"""A real Debian in a folder: made once with debootstrap, kept as an archive, run by chroot.

Commands run in namespaces of their own, so whatever they mount or start ends with them.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pytest

SUITE = "bookworm"

PACKAGES = (
    "ca-certificates",
    "cloud-init",
    "iproute2",
    "libgomp1",  # the llama.cpp in pip's cache was built with OpenMP
    "mosquitto",
    "python3",
    "python3-cffi-backend",  # debootstrap does not see through cryptography's virtual packages
    "systemd",
    "systemd-sysv",
)

_ENTER = """\
mount -t proc proc "$0/proc"
mount -t tmpfs tmpfs "$0/run"
mount --bind /dev/null "$0/dev/null"
mount --bind /dev/urandom "$0/dev/urandom"
exec chroot "$0" "$@"
"""

_VARIABLES = {
    "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


@dataclass(frozen=True)
class DebianRoot:
    """An unpacked system."""

    folder: Path

    def command(self, *arguments: str) -> list[str]:
        """The command line that runs `arguments` in it."""
        namespaces = ["--mount", "--pid", "--uts", "--net", "--fork", "--kill-child"]
        return ["unshare", *namespaces, "sh", "-c", _ENTER, str(self.folder), *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*arguments),
            env=_VARIABLES,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def run_until(self, line: str, *arguments: str, wait_s: float = 0) -> bool:
        """Run a command and end all of it, as a power cut would, once it has printed `line`."""
        with subprocess.Popen(
            self.command(*arguments), env=_VARIABLES, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None  # PIPE was asked for
            for printed in process.stdout:
                if line in printed:
                    time.sleep(wait_s)
                    process.kill()
                    return True
        return False

    def tree(self, *without: str) -> dict[str, tuple[object, ...]]:
        """Every file: rights, owner, size, time of the last change, link."""
        found = {}
        for parent, folders, names in os.walk(self.folder):
            inner = "/" + os.path.relpath(parent, self.folder)
            folders[:] = [name for name in folders if f"{inner}/{name}".lstrip("/.") not in without]
            for name in (*folders, *names):
                path = Path(parent, name)
                facts = path.lstat()
                target = str(path.readlink()) if path.is_symlink() else ""
                owner = (facts.st_mode, facts.st_uid, facts.st_gid)
                is_file = path.is_file() and not path.is_symlink()
                when = (facts.st_size, facts.st_mtime_ns) if is_file else ()
                found[f"{inner}/{name}".removeprefix("/.")] = (*owner, *when, target)
        return found


@dataclass(frozen=True)
class Booted:
    """A system that was booted, by its init's process id."""

    init: int

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end."""
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup"]
        return subprocess.run(
            ["nsenter", f"--target={self.init}", *spaces, *arguments],
            env=_VARIABLES,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def wait_for(self, state: str, *arguments: str, seconds: float) -> bool:
        """Whether the command prints `state` within some time."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if state in self.run(*arguments).stdout:
                return True
            time.sleep(0.5)
        return False


@contextmanager
def boot(root: DebianRoot) -> Iterator[Booted]:
    """Boot it with its own systemd as process 1, without network; skips where that cannot be."""
    if shutil.which("systemd-nspawn") is None:
        pytest.skip("needs systemd-nspawn: apt install systemd-container")
    command = ["systemd-nspawn", "--quiet", "--settings=no", "--register=no", "--keep-unit"]
    command += ["--private-network", "--console=pipe", "--boot", "-D", str(root.folder)]
    with (
        tempfile.TemporaryFile() as console,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            booted = Booted(_init_of(process, console))
            if not booted.wait_for("ing", "systemctl", "is-system-running", seconds=60):
                pytest.skip("systemd does not come up in a container on this machine")
            yield booted
        finally:
            for _ in range(2):  # the second one means: at once
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(5)
            process.kill()


def _init_of(process: subprocess.Popen[bytes], console: IO[bytes]) -> int:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    for _ in range(100):
        if process.poll() is not None:
            break
        if found := children.read_text().split():
            return int(found[0])
        time.sleep(0.1)
    console.seek(0)
    said = console.read().decode(errors="replace").strip()
    pytest.skip(f"systemd-nspawn does not work on this machine: {said}")


def unpack_debian(folder: Path) -> DebianRoot:
    """A fresh one; skips the test where that cannot be."""
    archive = _archive()
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["tar", "-xpf", archive, "-C", folder], check=True, timeout=120)
    return DebianRoot(folder)


def _archive() -> Path:
    if os.geteuid() != 0:
        pytest.skip("needs root, for chroot")
    if subprocess.run(["unshare", "--mount", "true"], check=False, timeout=10).returncode:
        pytest.skip("this system does not let even root have namespaces of its own")
    key = hashlib.sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:12]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedpt-tests"
    archive = cache / f"debian-{SUITE}-{key}.tar"
    if not archive.is_file():
        if shutil.which("debootstrap") is None:
            pytest.skip("needs debootstrap: apt install debootstrap")
        cache.mkdir(parents=True, exist_ok=True)
        _make(archive)
    return archive


def _make(archive: Path) -> None:
    work = archive.with_suffix(f".{os.getpid()}")
    packages = ",".join(PACKAGES)
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", f"--include={packages}", SUITE, work, *_mirror()],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    try:
        if made.returncode:
            pytest.skip(f"no Debian could be made: {made.stdout.strip()[-300:]}")
        for unused in ("var/cache/apt", "usr/share/doc", "usr/share/locale", "usr/share/man"):
            shutil.rmtree(work / unused)
        part = archive.with_suffix(".part")
        subprocess.run(["tar", "-cpf", part, "-C", work, "."], check=True, timeout=120)
        part.replace(archive)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _mirror() -> Sequence[str]:
    """Where this machine's own packages come from, if it is such a Debian; else the default."""
    if shutil.which("apt-get") is None:
        return ()
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    for line in listed.stdout.splitlines():
        codename, _, address = line.partition(" ")
        if codename == SUITE and address.startswith("http"):
            return (address,)
    return ()

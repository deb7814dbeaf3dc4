"""Two processes and one folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedpt.errors import StorageError
from fedpt.folder_lock import LOCK_NAME, holder_of, sole_use_of

_HOLDER = """
import sys
from pathlib import Path
from fedpt.folder_lock import sole_use_of
with sole_use_of(Path(sys.argv[1]), user="coordinator"):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(folder: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_a_second_process_is_refused_in_one_line_and_a_killed_one_leaves_nothing(
    tmp_path: Path,
) -> None:
    with start_holder(tmp_path) as process:
        with pytest.raises(StorageError) as caught, sole_use_of(tmp_path, user="coordinator"):
            pass
        assert str(caught.value) == (
            f"another coordinator (process {process.pid}) uses {tmp_path}:"
            " stop it, or give this one a state_dir of its own"
        )
        assert holder_of(tmp_path) == str(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert holder_of(tmp_path) is None
        with sole_use_of(tmp_path, user="coordinator"):
            assert holder_of(tmp_path) == str(os.getpid())


def test_the_folder_is_made_and_is_free_afterwards(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert holder_of(folder) is None
    with sole_use_of(folder, user="device"):
        assert holder_of(folder) == str(os.getpid())
    assert holder_of(folder) is None


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    with sole_use_of(tmp_path, user="device"):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert holder_of(tmp_path) is None
    finally:
        child.communicate(b"\n")


def test_looking_does_not_disturb_another_who_looks(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("77")
    assert [holder_of(tmp_path) for _ in range(3)] == [None] * 3


def test_a_folder_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match="cannot write"),
        sole_use_of(tmp_path / "file", user="device"),
    ):
        pass

"""What installs a server: its script and units, put beside the fleet's server files."""

from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from fedpt.files import write_bytes


def put_server_files(server: Path) -> None:
    """Put install.sh and systemd/ into a fleet's `server` folder; newer ones replace older ones.

    Raises:
        StorageError: They cannot be written.
    """
    deploy = files("deploy")
    board = deploy.joinpath("board")
    _put(deploy.joinpath("server", "install.sh"), server)
    _put(board.joinpath("install-steps.sh"), server)
    _put(deploy.joinpath("server", "systemd"), server)
    _put(board.joinpath("systemd", "fedpt.slice"), server / "systemd")


def _put(source: Traversable, folder: Path) -> None:
    if source.is_dir():
        for inner in source.iterdir():
            _put(inner, folder / source.name)
    else:
        write_bytes(folder / source.name, source.read_bytes())

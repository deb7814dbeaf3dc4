"""A fleet's server folder gets what its install.sh looks for."""

from pathlib import Path

from deploy.fleet.server_files import put_server_files


def test_script_steps_and_units_lie_beside_the_fleets_own_files(tmp_path: Path) -> None:
    put_server_files(tmp_path)
    names = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert names == {
        "install.sh",
        "install-steps.sh",
        "systemd/fedpt.slice",
        "systemd/fedpt-coordinator.service",
        "systemd/fedpt-worker@.service",
        "systemd/fedpt-enrolment.service",
        "systemd/fedpt-broker-reload.path",
        "systemd/fedpt-broker-reload.service",
        "systemd/fedpt-.service.d/back-off.conf",
        "systemd/mosquitto.service.d/fedpt.conf",
    }


def test_putting_them_again_brings_newer_ones(tmp_path: Path) -> None:
    put_server_files(tmp_path)
    (tmp_path / "install.sh").write_text("old")
    put_server_files(tmp_path)
    assert (tmp_path / "install.sh").read_text().startswith("#!/bin/sh")

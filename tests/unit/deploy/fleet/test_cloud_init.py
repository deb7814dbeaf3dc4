"""cloud-init's files say what was asked for, whatever a network or a board is called."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from deploy.fleet.cloud_init import FirstBoot, meta_data, network_config, user_data
from deploy.fleet.network import Network, Wifi
from fedpt.errors import FleetError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ someone@example"
PLAIN = FirstBoot("edge-01", Network(), "eth0")

SSIDS = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=32)


def _read(text: str) -> Any:
    return yaml.safe_load(text)


def test_without_ssh_keys_nobody_can_log_in() -> None:
    settings = _read(user_data(PLAIN))
    assert settings["user"] == {"name": "fleet", "lock_passwd": True, "sudo": None}
    assert settings["ssh_pwauth"] is False
    assert "disable --now ssh" in settings["runcmd"][0][-1]


def test_with_ssh_keys_their_owners_log_in_and_nobody_else() -> None:
    settings = _read(user_data(FirstBoot("edge-01", Network(), "eth0", (f"{KEY}\n",))))
    assert settings["user"]["ssh_authorized_keys"] == [KEY]
    assert settings["user"]["lock_passwd"] is True
    assert settings["runcmd"][0] == ["systemctl", "enable", "--now", "ssh"]


def test_it_begins_as_cloud_init_wants_it_and_takes_no_password_nor_the_plural_of_user() -> None:
    text = user_data(FirstBoot("edge-01", Network(), "eth0", (KEY,)))
    assert text.startswith("#cloud-config\n")
    assert {"users", "password", "chpasswd", "apt", "packages"}.isdisjoint(_read(text))


@pytest.mark.parametrize("key", ["", "ssh-ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----", "a b"])
def test_what_is_no_public_key_is_refused(key: str) -> None:
    with pytest.raises(FleetError, match="no public SSH key"):
        user_data(FirstBoot("edge-01", Network(), "eth0", (key,)))


def test_an_impossible_host_name_is_refused() -> None:
    with pytest.raises(FleetError, match="'edge_01'"):
        user_data(FirstBoot("edge_01", Network(), "eth0"))


def test_the_install_script_is_one_that_shells_can_read(tmp_path: Path) -> None:
    (file,) = _read(user_data(PLAIN))["write_files"]
    script = tmp_path / "script"
    script.write_text(file["content"])
    subprocess.run(["sh", "-n", script], check=True, timeout=10)
    assert file["permissions"] == "0755"


def test_every_boot_tries_again_and_runcmd_runs_the_same_script() -> None:
    settings = _read(user_data(PLAIN))
    path = settings["write_files"][0]["path"]
    assert path.startswith("/var/lib/cloud/scripts/per-boot/")
    assert settings["runcmd"][-1] == ["sh", path]


@given(SSIDS, st.from_regex(r"[0-9a-f]{64}", fullmatch=True), st.sampled_from(["DE", "NO", "US"]))
def test_any_wifi_survives_the_way_through_yaml(ssid: str, psk: str, country: str) -> None:
    boot = FirstBoot("edge-01", Network(Wifi(ssid, psk, country)), "eth0")
    wireless = _read(network_config(boot))["wifis"]["wlan0"]
    assert wireless["access-points"] == {ssid: {"password": psk}}
    assert wireless["regulatory-domain"] == country  # Norway's NO is no "false"


def test_no_network_holds_up_the_boot() -> None:
    boot = FirstBoot("edge-01", Network(Wifi("home", "0" * 64, "DE")), "eth0")
    settings = _read(network_config(boot))
    assert settings["version"] == 2
    assert settings["ethernets"]["eth0"] == {"dhcp4": True, "optional": True}
    assert settings["wifis"]["wlan0"]["optional"] is True


def test_a_pattern_matches_whatever_the_wired_interface_is_called() -> None:
    settings = _read(network_config(FirstBoot("edge-01", Network(), "e*")))
    assert settings["ethernets"]["wired"]["match"] == {"name": "e*"}
    assert "wifis" not in settings


def test_each_bundle_is_a_new_instance_of_the_same_host() -> None:
    first, second = _read(meta_data("edge-01")), _read(meta_data("edge-01"))
    assert first["instance-id"] != second["instance-id"]
    assert first["local-hostname"] == second["local-hostname"] == "edge-01"


def test_the_instance_fits_into_a_kernel_command_line() -> None:
    instance = _read(meta_data("a" * 63))["instance-id"]
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,128}", instance)

from datetime import time
from pathlib import Path

import pytest

from edge_runtime.settings import ENVIRONMENT_PREFIX, DeviceSettings, TrainingConditions
from fedpt.errors import SettingsError
from fedpt.settings import load

DEVICE = 'name = "kitchen"\nsmall = "small.gguf"\nstate_dir = "state"\n'


def device_with(folder: Path, api: str) -> DeviceSettings:
    toml = folder / "device.toml"
    toml.write_text(f"{DEVICE}[api]\n{api}\n")
    return load(DeviceSettings, toml=toml, prefix=ENVIRONMENT_PREFIX, environment={})


def test_without_a_port_nothing_listens_but_the_socket(tmp_path: Path) -> None:
    assert device_with(tmp_path, "").api.port is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_addresses_need_no_token(tmp_path: Path, host: str) -> None:
    assert device_with(tmp_path, f'host = "{host}"\nport = 8080').api.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "board.local"])
def test_other_addresses_need_a_token(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsError, match=r"api: host .* set token_file") as caught:
        device_with(tmp_path, f'host = "{host}"\nport = 8080')
    assert "\n" not in str(caught.value)


def test_the_token_file_is_found_beside_the_settings(tmp_path: Path) -> None:
    settings = device_with(tmp_path, 'host = "0.0.0.0"\nport = 8080\ntoken_file = "token"')
    assert settings.api.token_file == tmp_path / "token"


def conditions(folder: Path, lines: str) -> TrainingConditions:
    toml = folder / "device.toml"
    toml.write_text(f"{DEVICE}[training_conditions]\n{lines}\n")
    settings = load(DeviceSettings, toml=toml, prefix=ENVIRONMENT_PREFIX, environment={})
    return settings.training_conditions


@pytest.mark.parametrize(
    "lines",
    ['from_time = "22:00"\nuntil_time = "06:30"', "from_time = 22:00:00\nuntil_time = 06:30:00"],
)
def test_hours_are_texts_or_tomls_own_times(tmp_path: Path, lines: str) -> None:
    found = conditions(tmp_path, lines)
    assert (found.from_time, found.until_time) == (time(22), time(6, 30))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ('from_time = "22:00"', "set both or neither"),
        ('from_time = "22:00"\nuntil_time = "22:00"', "are both 22:00"),
        ('from_time = "22:00Z"\nuntil_time = "06:00"', "names a time zone"),
        ("most_celsius = 1000", "less than or equal to 150"),
        ("most_celcius = 70", "unknown setting"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(tmp_path: Path, lines: str, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        conditions(tmp_path, lines)

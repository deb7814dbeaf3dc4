"""Settings: later sources win, every fault is told at once, in one line."""

from pathlib import Path

import pytest
from pydantic import Field

from fedpt.errors import SettingsError
from fedpt.settings import BrokerSettings, Name, Settings, load


class Oven(Settings):
    """Some settings of each kind."""

    name: Name = "oven"
    degrees: float = Field(180.0, gt=0)
    recipe: Path = Path("recipe.txt")
    notes: Path | None = None
    broker: BrokerSettings = BrokerSettings()


def oven(
    folder: Path | None = None,
    toml: str | bytes = "",
    environment: dict[str, str] | None = None,
    **flags: object,
) -> Oven:
    if folder is not None:
        (folder / "oven.toml").write_bytes(toml.encode() if isinstance(toml, str) else toml)
    path = folder / "oven.toml" if folder is not None else None
    return load(Oven, toml=path, prefix="OVEN", environment=environment or {}, overrides=flags)


def test_without_sources_the_defaults_hold() -> None:
    assert oven().degrees == 180.0


@pytest.mark.parametrize(
    ("environment", "flag", "expected"),
    [({}, None, 1.0), ({"OVEN_DEGREES": "2"}, None, 2.0), ({"OVEN_DEGREES": "2"}, 3.0, 3.0)],
)
def test_flags_win_over_the_environment_over_the_file(
    tmp_path: Path, environment: dict[str, str], flag: float | None, expected: float
) -> None:
    assert oven(tmp_path, "degrees = 1", environment, degrees=flag).degrees == expected


def test_tables_are_merged_key_by_key(tmp_path: Path) -> None:
    toml = '[broker]\nhost = "a"\nport = 1\nusername = "u"'
    broker = oven(tmp_path, toml, {"OVEN_BROKER__PORT": "2"}, broker={"host": "b"}).broker
    assert (broker.host, broker.port, broker.username) == ("b", 2, "u")


def test_the_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVEN_DEGREES", "7")
    assert load(Oven, prefix="OVEN").degrees == 7.0


def test_variables_of_others_are_no_matter() -> None:
    assert oven(environment={"OVENX": "1", "MY_OVEN_DEGREES": "1", "PATH": "/"}) == oven()


def test_unknown_keys_are_refused_in_file_and_environment(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        oven(tmp_path, "[broker]\nprot = 1", {"OVEN_DEGRESE": "1", "OVEN_A__B": "1", "OVEN_": ""})
    for key in ("broker.prot", "degrese", "a"):
        assert f"{key}: unknown setting" in str(caught.value)


def test_all_faults_come_in_one_line(tmp_path: Path) -> None:
    toml = 'name = "-"\ndegrees = -1\nrecpie = "x"\n[broker]\nport = 99999'
    with pytest.raises(SettingsError) as caught:
        oven(tmp_path, toml, {"OVEN_NOTES": "~nobody-here/x"})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/oven.toml: name = '-': ")
    assert "degrees = -1: input should be greater than 0" in message
    assert "broker.port = 99999" in message
    assert "recpie: unknown setting" in message
    assert "\n" not in message


def test_a_missing_setting_is_named() -> None:
    class Needy(Settings):
        needed: int

    with pytest.raises(SettingsError, match="the settings: needed: missing"):
        load(Needy, prefix="NEEDY", environment={})


def test_relative_paths_are_taken_from_the_files_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/cook")
    got = oven(tmp_path, 'notes = "~/n"\n[broker]\nca_file = "ca.pem"')
    assert got.recipe == tmp_path / "recipe.txt"
    assert got.notes == Path("/home/cook/n")
    assert got.broker.ca_file == tmp_path / "ca.pem"


def test_without_a_file_relative_paths_are_taken_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert oven(recipe="r").recipe == tmp_path / "r"


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"recipe = '~nobody-here/r': there is no such user"):
        oven(recipe="~nobody-here/r")


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("degrees 5", "Expected '='"),
        (b"\xff", "can't decode byte 0xff"),
        ("a = " + "[" * 50_000, "recursion"),
        ("degrees = nan", "degrees = nan: "),
        ("degrees = inf", "degrees = inf: input should be a finite number"),
        ("broker = 5", "broker = 5: "),
        ('[broker]\nhost = ""', "broker.host = '': "),
        ('name = "a/b"', "name = 'a/b': "),
        ('name = "a\\n"', "name = 'a.n': "),
    ],
)
def test_a_bad_file_is_a_settings_error(tmp_path: Path, toml: str | bytes, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        oven(tmp_path, toml)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no such settings file: .*none"):
        load(Oven, toml=tmp_path / "none", prefix="OVEN")
    with pytest.raises(SettingsError, match="cannot read"):
        load(Oven, toml=tmp_path, prefix="OVEN")


@pytest.mark.parametrize("first", ["OVEN_BROKER", "OVEN_BROKER__PORT"])
def test_a_variable_that_is_both_value_and_table_is_refused(first: str) -> None:
    both = {first: "1", "OVEN_BROKER__PORT": "1", "OVEN_BROKER": "1"}
    with pytest.raises(SettingsError, match=r"OVEN_BROKER.* both set"):
        oven(environment=both)


@pytest.mark.parametrize(
    ("broker", "message"),
    [
        ({"key_file": "k"}, "broker: certificate_file and key_file do nothing without ca_file"),
        ({"certificate_file": "c"}, "do nothing without ca_file"),
        ({"password_file": "p"}, "broker: password_file does nothing without username"),
    ],
)
def test_a_setting_without_its_partner_is_refused(broker: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        oven(broker=broker)

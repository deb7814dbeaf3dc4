"""Settings from a TOML file, the environment and flags; later ones win.

Knows no setting itself: each app declares a frozen class and calls `load`. Unknown keys are
errors, in the file and in the environment, for a misspelt setting is a setting that does nothing.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from fedpt.errors import SettingsError
from fedpt.ids import NAME_PATTERN

Name = Annotated[str, StringConstraints(pattern=f"^{NAME_PATTERN}$")]
"""A device's or federation's name."""


class Settings(BaseModel):
    """Base of every settings class, nested ones too."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False
    )


class BrokerSettings(Settings):
    """Where the MQTT broker is and how to log in."""

    host: str = Field("127.0.0.1", min_length=1, description="host name or address")
    port: int = Field(1883, ge=1, le=65_535, description="TCP port")
    username: str | None = Field(None, description="user name, if the broker asks for one")
    password_file: Path | None = Field(None, description="file that holds the password")
    ca_file: Path | None = Field(None, description="certificate authority; turns TLS on")
    certificate_file: Path | None = Field(None, description="our certificate, for TLS")
    key_file: Path | None = Field(None, description="our certificate's key, for TLS")

    @model_validator(mode="after")
    def _require_partners(self) -> Self:
        if self.ca_file is None and (self.certificate_file or self.key_file):
            raise ValueError("certificate_file and key_file do nothing without ca_file")
        if self.username is None and self.password_file:
            raise ValueError("password_file does nothing without username")
        return self


S = TypeVar("S", bound=Settings)


def load(
    kind: type[S],
    *,
    toml: Path | None = None,
    prefix: str,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,  # Any: what a flag holds is checked below
) -> S:
    """Read settings: the TOML file, then `PREFIX_KEY` (`PREFIX_TABLE__KEY`), then `overrides`.

    Relative paths in the file are taken from the file's own folder.

    Raises:
        SettingsError: Everything that is wrong, in one line. The command line prints it.
    """
    values = _read_toml(toml) if toml else {}
    _merge(values, _from_environment(os.environ if environment is None else environment, prefix))
    _merge(values, {key: value for key, value in (overrides or {}).items() if value is not None})
    base = toml.parent.absolute() if toml else Path.cwd()
    try:
        return _with_absolute_paths(kind.model_validate(values), base)
    except ValidationError as error:
        source = toml or "the settings"
        raise SettingsError(f"{source}: " + "; ".join(map(_fault, error.errors()))) from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(f"no such settings file: {path}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from error


def _from_environment(environment: Mapping[str, str], prefix: str) -> dict[str, Any]:
    """`FEDPT_DEVICE_BROKER__PORT=1884` -> `{"broker": {"port": "1884"}}`."""
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if name.startswith(f"{prefix}_"):
            *tables, key = name.removeprefix(f"{prefix}_").lower().split("__")
            table = values
            for part in tables:
                table = table.setdefault(part, {})
                if not isinstance(table, dict):
                    raise SettingsError(f"{name} and {name.rpartition('__')[0]} are both set")
            if isinstance(table.get(key), dict):
                raise SettingsError(f"{name} and a variable that begins with {name}__ are both set")
            table[key] = text
    return values


def _merge(values: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = dict(value) if isinstance(value, Mapping) else value


def _with_absolute_paths(settings: S, base: Path) -> S:
    changes: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            changes[name] = base / _expanded(name, value)
        elif isinstance(value, Settings):
            changes[name] = _with_absolute_paths(value, base)
    return settings.model_copy(update=changes)


def _expanded(name: str, path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise SettingsError(f"{name} = '{path}': there is no such user") from error


def _fault(error: Any) -> str:  # Any: pydantic's own dict
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"{key}: unknown setting"
    if error["type"] == "missing":
        return f"{key}: missing"
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}"
    return f"{key} = {error['input']!r}: {error['msg'][:1].lower()}{error['msg'][1:]}"

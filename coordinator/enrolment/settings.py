"""What an operator can set on the enrolment service; `fedpt fleet init` writes it."""

from pathlib import Path
from typing import Final

from pydantic import Field

from fedpt.settings import Name, Settings

ENVIRONMENT_PREFIX: Final = "FEDPT_ENROLMENT"


class EnrolmentSettings(Settings):
    """Everything of `fedpt coordinator enrolment`."""

    federation: Name = Field("home", description="the federation that boards are enrolled in")
    host: str = Field("127.0.0.1", min_length=1, description="address to listen on")
    port: int = Field(8884, ge=1, le=65_535, description="TCP port, HTTPS")
    certificate_file: Path = Field(description="this service's certificate, with its issuer's")
    key_file: Path = Field(description="its key")
    issuing_certificate_file: Path = Field(description="the issuing authority")
    issuing_key_file: Path = Field(description="its key: signs boards' certificates")
    operator_key_file: Path = Field(description="the operator's public key: signs tokens")
    workers_file: Path | None = Field(
        None, description="logit workers with certificates made by the operator, one name a line"
    )
    state_dir: Path = Field(description="folder for the register")
    broker_folder: Path = Field(description="folder for Mosquitto's access rules and revocations")
    reload_command: tuple[str, ...] = Field(
        (), description="run when those changed; unset: something else watches the folder"
    )

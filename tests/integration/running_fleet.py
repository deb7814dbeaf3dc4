"""A fleet's server as `fedpt fleet init` makes it: Mosquitto with its files, the enrolment service.

Real processes on loopback; the configuration is used as it was written.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from deploy.fleet.adding import ready_credentials, token_credentials
from deploy.fleet.creating import ServerPlaces, create_fleet, new_record
from deploy.fleet.fleet_folder import Fleet
from edge_runtime.drivers.enrolment import ensure_identity
from edge_runtime.settings import DeviceSettings
from edge_runtime.settings import EnrolmentSettings as DeviceEnrolment
from fedpt.settings import BrokerSettings
from fedpt.signing import SigningKey
from tests.fakes.brokers import free_port, mosquitto_path
from tests.integration.running_processes import RunningProcesses

PASSPHRASE = "correct horse"


@dataclass
class RunningFleet:
    """Broker and enrolment service run while the block does; devices are enrolled by `enrol`."""

    folder: Path
    fleet: Fleet = field(init=False)
    running: RunningProcesses = field(init=False)

    def __post_init__(self) -> None:
        self.running = RunningProcesses(self.folder)
        record = new_record(
            "home", ["127.0.0.1"], broker_port=free_port(), enrolment_port=free_port()
        )
        places = ServerPlaces.inside(self.folder / "fleet")
        self.fleet = create_fleet(self.folder / "fleet", record, PASSPHRASE, places)
        places.broker.mkdir(parents=True)
        config = self.fleet.server / "mosquitto" / "mosquitto.conf"
        # as root Mosquitto would become another user, who cannot read a test's folder
        config.write_text(config.read_text() + "user root\nlog_type all\n")
        self.broker_folder = places.enrolment / "broker"

    def __enter__(self) -> "RunningFleet":
        self.start_enrolment()
        self.start_broker()
        return self

    def __exit__(self, *_: object) -> None:
        self.running.end()

    def start_enrolment(self) -> None:
        """Start the service and wait until it answers."""
        config = self.fleet.server / "enrolment" / "enrolment.toml"
        environment = {**os.environ, "FEDPT_ENROLMENT_HOST": "127.0.0.1"}
        self.start(
            "enrolment",
            [
                sys.executable,
                "-m",
                "fedpt.cli",
                "coordinator",
                "enrolment",
                "--config",
                str(config),
            ],
            environment,
        )
        url = f"https://127.0.0.1:{self.fleet.record.enrolment_port}/health"
        authority = str(self.fleet.folder / "authority" / "root-ca.pem")
        self.wait_until(lambda: _answers(url, authority), "enrolment")

    def start_broker(self) -> None:
        """Start Mosquitto with the fleet's configuration."""
        config = self.fleet.server / "mosquitto" / "mosquitto.conf"
        before = self.log("broker").count("running")
        self.start("broker", [str(mosquitto_path()), "-c", str(config)], dict(os.environ))
        self.wait_until(lambda: self.log("broker").count("running") > before, "broker")

    def restart(self) -> None:
        """End both and start them with the files that are there now."""
        self.running.end()
        self.running.by_name.clear()
        self.start_enrolment()
        self.start_broker()

    def reload_broker(self) -> None:
        """What the path unit does when the access rules have changed."""
        before = self.log("broker").count("Reloading config")
        self.running.by_name["broker"].send_signal(signal.SIGHUP)
        self.wait_until(lambda: self.log("broker").count("Reloading config") > before, "broker")

    def token(self, name: str, *, life_h: float = 1.0) -> str:
        """A one-time token."""
        token = token_credentials(self.fleet, name, "rpi5", PASSPHRASE, life_h=life_h).token
        assert token is not None
        return token

    def operator_key(self) -> SigningKey:
        """Signs tokens and statements."""
        return self.fleet.signing_key("operator", PASSPHRASE)

    def device_settings(self, name: str) -> DeviceSettings:
        """Settings of a device that is not enrolled yet, its token beside."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return DeviceSettings(
            name=name,
            federation="home",
            small=folder / "model.gguf",
            state_dir=folder,
            broker=self.broker_settings(folder / "identity.pem"),
            enrolment=DeviceEnrolment(
                url=f"https://127.0.0.1:{self.fleet.record.enrolment_port}",
                token_file=folder / "enrolment.token",
            ),
        )

    def enrol(self, name: str) -> BrokerSettings:
        """Enrol a device as a board does it."""
        settings = self.device_settings(name)
        assert settings.enrolment is not None
        settings.enrolment.token_file.write_text(self.token(name))
        ensure_identity(settings)
        return settings.broker

    def ready(self, name: str, board: str) -> BrokerSettings:
        """An identity made by the operator."""
        identity = ready_credentials(self.fleet, name, board).identity
        assert identity is not None
        path = self.folder / f"{name}.pem"
        path.write_bytes(identity[1] + identity[0])
        return self.broker_settings(path)

    def coordinator(self) -> BrokerSettings:
        """The coordinator's own connection."""
        folder = self.fleet.server / "coordinator"
        settings = self.broker_settings(folder / "coordinator.pem")
        return settings.model_copy(update={"key_file": folder / "coordinator.key"})

    def broker_settings(self, certificate: Path | None) -> BrokerSettings:
        """A connection with this certificate."""
        return BrokerSettings(
            host="127.0.0.1",
            port=self.fleet.record.broker_port,
            ca_file=self.fleet.folder / "authority" / "root-ca.pem",
            certificate_file=certificate,
        )

    def log(self, name: str) -> str:
        """What a process has said."""
        return self.running.log(name)

    def start(
        self, name: str, command: Sequence[object], environment: dict[str, str] | None = None
    ) -> None:
        """Start a process; what it says is in `log(name)`."""
        self.running.start(name, command, environment)

    def wait_until(self, claim: Callable[[], bool], what: str) -> None:
        """Return when the claim is true; else tell what the process `what` has said."""
        self.running.wait_until(claim, what, told_by=what)


def _answers(url: str, authority: str) -> bool:
    import ssl

    context = ssl.create_default_context(cafile=authority)
    try:
        return httpx.get(url, verify=context, trust_env=False).text == "ok"
    except httpx.TransportError:
        return False

"""Who a logit worker is to the broker, and which settings cannot be."""

from pathlib import Path

import pytest

from coordinator.settings import CoordinatorSettings
from coordinator.worker.identity import worker_identity
from fedpt.errors import ArtifactError, SettingsError
from fedpt.settings import load
from tests.fakes.identities import Identities

LEAST = 'state_dir = "s"\nsmall = "s"\nlarge = "l"\nevaluation = "e"\npublic = "p"\n'


def settings(folder: Path, lines: str) -> CoordinatorSettings:
    path = folder / "coordinator.toml"
    path.write_text(LEAST + lines)
    return load(CoordinatorSettings, toml=path, prefix="FEDPT_COORDINATOR", environment={})


@pytest.fixture
def fleet(tmp_path: Path) -> Identities:
    identities = Identities(tmp_path)
    identities.write("coordinator", "coordinator")
    identities.write("worker-1", "worker")
    return identities


BROKER = (
    '[broker]\nca_file = "ca.pem"\ncertificate_file = "coordinator.pem"\n'
    'key_file = "coordinator.key"\n'
)
OWN = '[worker]\ncertificate_file = "worker-1.pem"\nkey_file = "worker-1.key"\n'


def test_without_tls_a_worker_is_named_by_its_settings_or_by_chance(tmp_path: Path) -> None:
    assert worker_identity(settings(tmp_path, '[worker]\nname = "w"\n'))[0] == "w"
    first, second = (worker_identity(settings(tmp_path, ""))[0] for _ in range(2))
    assert first.startswith("worker-")
    assert first != second


def test_with_tls_a_worker_is_named_by_its_certificate_and_logs_in_with_it(
    tmp_path: Path, fleet: Identities
) -> None:
    name, broker = worker_identity(settings(tmp_path, BROKER + OWN))
    assert name == "worker-1"
    assert broker.certificate_file == tmp_path / "worker-1.pem"
    assert broker.key_file == tmp_path / "worker-1.key"
    assert broker.ca_file == fleet.ca


def test_another_name_than_the_certificates_is_refused_in_one_line(
    tmp_path: Path, fleet: Identities
) -> None:
    with pytest.raises(SettingsError, match=r"is for 'worker-1', not for the worker 'worker-2'"):
        worker_identity(settings(tmp_path, BROKER + OWN + 'name = "worker-2"\n'))


def test_the_coordinators_certificate_is_not_lent(tmp_path: Path, fleet: Identities) -> None:
    with pytest.raises(SettingsError, match="a logit worker needs a certificate of its own"):
        worker_identity(settings(tmp_path, BROKER + "[worker]\nprocesses = 0\n"))


def test_a_certificate_that_is_not_there_is_told(tmp_path: Path, fleet: Identities) -> None:
    (tmp_path / "worker-1.pem").unlink()
    with pytest.raises(ArtifactError, match=r"cannot read .*worker-1\.pem"):
        worker_identity(settings(tmp_path, BROKER + OWN))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (BROKER, "throws it and the coordinator off by turns"),
        ('[worker]\nkey_file = "k"\n', "go together"),
        (OWN, "does nothing without broker.ca_file"),
        (BROKER + OWN + "processes = 2\n", "2 workers cannot share one name or certificate"),
        ('[worker]\nname = "w"\nprocesses = 2\n', "cannot share one name"),
        ("[worker]\nprocesses = 17\n", "worker.processes = 17"),
        ("[metrics]\nport = 0\n", "metrics.port = 0"),
    ],
)
def test_workers_that_would_throw_each_other_off_are_refused(
    tmp_path: Path, lines: str, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        settings(tmp_path, lines)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "lines",
    [
        BROKER + OWN,
        BROKER + "[worker]\nprocesses = 0\n",
        "[worker]\nprocesses = 3\n",
        '[broker]\nca_file = "ca.pem"\nusername = "u"\npassword_file = "p"\n',
    ],
)
def test_workers_that_get_along_are_allowed(tmp_path: Path, lines: str) -> None:
    found = settings(tmp_path, lines)
    assert CoordinatorSettings.model_validate_json(found.model_dump_json()) == found

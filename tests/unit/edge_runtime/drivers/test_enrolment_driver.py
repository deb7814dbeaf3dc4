"""A board with an identity that was given a new token while the service is away."""

from datetime import UTC, datetime

import pytest

from edge_runtime.drivers.enrolment import ensure_identity
from edge_runtime.settings import DeviceSettings, EnrolmentSettings
from fedpt.certificates import Authority, new_key, own_request
from fedpt.errors import EnrolmentError
from fedpt.settings import BrokerSettings
from fedpt.signing import private_key_to_pem
from tests.fakes.brokers import free_port


@pytest.fixture
def settings(tmp_path):
    root = Authority.new_root("root", datetime.now(UTC))
    (tmp_path / "ca.pem").write_bytes(root.certificate_pem)
    (tmp_path / "enrolment.token").write_text("a token")
    return DeviceSettings(
        name="kitchen",
        small=tmp_path / "model.gguf",
        state_dir=tmp_path,
        connect_timeout_s=0.1,
        broker=BrokerSettings(
            ca_file=tmp_path / "ca.pem", certificate_file=tmp_path / "identity.pem"
        ),
        enrolment=EnrolmentSettings(
            url=f"https://127.0.0.1:{free_port()}", token_file=tmp_path / "enrolment.token"
        ),
    )


def _write_identity(settings):
    key, now = new_key(), datetime.now(UTC)
    issuing = Authority.new_root("root", now).new_issuing("issuing", now)
    certificate = issuing.issue(own_request("kitchen", key), "device", now)
    settings.broker.certificate_file.write_bytes(private_key_to_pem(key) + certificate)


def test_it_starts_with_what_it_has_and_keeps_the_token_for_the_next_start(settings, caplog):
    _write_identity(settings)
    before = settings.broker.certificate_file.read_bytes()
    ensure_identity(settings)
    assert settings.broker.certificate_file.read_bytes() == before
    assert settings.enrolment.token_file.exists()
    assert "the old identity stays" in caplog.text


def test_without_an_identity_it_cannot_start_and_says_where_it_asked(settings, monkeypatch):
    monkeypatch.setattr("edge_runtime.drivers.enrolment._RETRY_S", 0.2)
    with pytest.raises(EnrolmentError, match=r"no answer from the enrolment service, https://127"):
        ensure_identity(settings)

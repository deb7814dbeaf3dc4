"""Certificates of a small fleet, good and bad, as the doctors see them."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fedpt.certificate_file import key_fits, leads_to_authority, read_facts
from fedpt.doctor import Finding, Level, examine
from fedpt.errors import ArtifactError
from fedpt.identity_checks import identity, judge_certificate, judge_private, private_file
from fedpt.settings import BrokerSettings
from tests.fakes.identities import Identities

NOW = datetime(2027, 3, 1, tzinfo=UTC)


@pytest.fixture
def fleet(tmp_path: Path) -> Identities:
    return Identities(tmp_path / "home")


def look(broker: BrokerSettings, name: str = "kitchen") -> list[Finding]:
    return list(examine([lambda: identity(broker, name, renew="RENEW")]))


def faults(broker: BrokerSettings, name: str = "kitchen") -> list[str]:
    return [one.what for one in look(broker, name) if one.level == "fault"]


@pytest.mark.parametrize(
    ("now", "level"),
    [
        (timedelta(days=-1), "fault"),
        (timedelta(days=1), "ok"),
        (timedelta(days=360), "warning"),
        (timedelta(days=366), "fault"),
    ],
)
def test_a_certificate_is_good_from_its_beginning_to_shortly_before_its_end(
    fleet: Identities, now: timedelta, level: Level
) -> None:
    facts = read_facts(fleet.write("kitchen")[0])
    assert judge_certificate(facts, "kitchen", fleet.now + now, renew="RENEW").level == level


def test_a_good_identity_is_all_well(fleet: Identities) -> None:
    fleet.write("kitchen")
    assert [one.level for one in look(fleet.login(1, "kitchen"))] == ["ok", "ok"]


def test_without_tls_there_is_nothing_to_look_at() -> None:
    assert look(BrokerSettings()) == []


def test_another_boards_certificate_is_told_with_both_names(fleet: Identities) -> None:
    fleet.write("garage")
    (what,) = faults(fleet.login(1, "garage"))
    assert what == "certificate: it is for 'garage', not for 'kitchen'"


def test_an_expired_certificate_is_told_with_how_to_renew(fleet: Identities) -> None:
    fleet.write("kitchen", at=fleet.now - timedelta(days=500))
    (finding,) = [one for one in look(fleet.login(1, "kitchen")) if one.level == "fault"]
    assert "it ended on" in finding.what
    assert finding.advice == "RENEW"


def test_a_strangers_authority_is_told(fleet: Identities, tmp_path: Path) -> None:
    stranger = Identities(tmp_path / "stranger")
    certificate, _ = fleet.write("kitchen")
    assert leads_to_authority(certificate, fleet.ca)
    assert not leads_to_authority(certificate, stranger.ca)
    (what,) = faults(fleet.login(1, "kitchen").model_copy(update={"ca_file": stranger.ca}))
    assert "does not vouch" in what


def test_without_its_issuer_in_the_file_a_certificate_leads_nowhere(
    fleet: Identities, tmp_path: Path
) -> None:
    certificate, _ = fleet.write("kitchen")
    first, end, _ = certificate.read_text().partition("-----END CERTIFICATE-----\n")
    alone = tmp_path / "alone.pem"
    alone.write_text(first + end)
    assert not leads_to_authority(alone, fleet.ca)


def test_another_certificates_key_is_told(fleet: Identities) -> None:
    certificate, key = fleet.write("kitchen")
    _, other = fleet.write("garage")
    assert key_fits(certificate, key)
    assert not key_fits(certificate, other)
    broker = fleet.login(1, "kitchen").model_copy(update={"key_file": other})
    assert any("is not the key of" in what for what in faults(broker))


def test_one_file_may_hold_certificate_and_key(fleet: Identities, tmp_path: Path) -> None:
    certificate, key = fleet.write("kitchen")
    both = tmp_path / "identity.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    broker = BrokerSettings(ca_file=fleet.ca, certificate_file=both)
    both.chmod(0o600)
    assert faults(broker) == []
    both.chmod(0o640)
    assert faults(broker) == [f"secret: others may read {both} (mode 0640)"]


def test_a_key_open_to_others_is_told_with_its_cure(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("")
    path.chmod(0o644)
    (finding,) = private_file(path)
    assert (finding.level, finding.advice) == ("fault", f"chmod 600 {path}")
    (missing,) = private_file(tmp_path / "missing")
    assert missing.level == "fault"
    assert judge_private(path, 0o100400).level == "ok"


@pytest.mark.parametrize("content", [b"", b"not a certificate", b"\x00\xff" * 40])
def test_a_damaged_certificate_is_one_line(
    fleet: Identities, tmp_path: Path, content: bytes
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"bad\.pem holds no usable certificate"):
        read_facts(bad)
    with pytest.raises(ArtifactError, match=r"bad\.pem holds no usable key"):
        key_fits(fleet.ca, bad)


def test_a_missing_certificate_is_a_fault(fleet: Identities) -> None:
    (what,) = faults(fleet.login(1, "nobody"))
    assert what.startswith("certificate: there is none at")
    with pytest.raises(ArtifactError, match="cannot read"):
        read_facts(fleet.folder / "nobody.pem")

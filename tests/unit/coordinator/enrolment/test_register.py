"""The register: a token works once, what is removed is out, the newest board of a name counts."""

from datetime import UTC, datetime

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.enrolment.register import (
    CertificateIssued,
    NameRemoved,
    Register,
    Repeated,
    Wanted,
    admit_enrolment,
    admit_renewal,
    apply,
    fold,
    members,
)
from fedpt.certificates import CertificateFacts, CertificateRequest, new_key
from fedpt.enrolment import TokenClaims
from fedpt.errors import EnrolmentError

KEYS = [new_key().public_key() for _ in range(3)]


def _claims(name="kitchen", nonce=1, issued=100.0):
    return TokenClaims(
        federation="home",
        name=name,
        board="rpi5",
        nonce=f"{nonce:032x}",
        issued_unix_s=issued,
        expires_unix_s=issued + 3600,
    )


def _request(name="kitchen", key=0):
    return CertificateRequest(name, KEYS[key])


def _issued(serial, claims=None, request=None, at=200.0):
    claims, request = claims or _claims(), request or _request()
    return CertificateIssued(
        serial=str(serial),
        name=claims.name,
        board=claims.board,
        key_sha256=request.key_sha256,
        certificate=f"certificate {serial}",
        at_unix_s=at,
        expires_unix_s=at + 1000,
        nonce=claims.nonce,
        token_issued_unix_s=claims.issued_unix_s,
    )


def _facts(name="kitchen", serial=1, role="device"):
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return CertificateFacts(name, role, serial, start, start, "issuing")


def test_a_new_token_is_wanted_and_the_same_request_again_gets_the_same_answer():
    assert admit_enrolment(Register(), _claims(), _request()) == Wanted()
    register = fold([_issued(1)])
    assert admit_enrolment(register, _claims(), _request()) == Repeated("certificate 1")


@pytest.mark.parametrize(
    ("claims", "request_", "says"),
    [
        (_claims(), _request(key=1), "was used already.*fedpt fleet remove kitchen"),
        (_claims(nonce=2), _request("garage"), "a token for 'kitchen' with a request for 'garage'"),
        (_claims("coordinator", nonce=2), _request("coordinator"), "a name of the server's own"),
    ],
)
def test_a_token_that_was_used_or_is_for_another_is_refused(claims, request_, says):
    with pytest.raises(EnrolmentError, match=says):
        admit_enrolment(fold([_issued(1)]), claims, request_)


def test_removal_outlaws_certificates_and_tokens_made_before_but_not_those_made_after():
    register = fold([_issued(1), NameRemoved(name="kitchen", at_unix_s=300.0)])
    assert register.revoked == {"1"}
    with pytest.raises(EnrolmentError, match="was removed after this token was made"):
        admit_enrolment(register, _claims(nonce=2), _request(key=1))
    with pytest.raises(EnrolmentError, match="is revoked"):
        admit_renewal(register, _facts(), _request(key=1))
    later = _claims(nonce=3, issued=301.0)
    assert admit_enrolment(register, later, _request(key=1)) == Wanted()
    again = apply(register, _issued(2, later, _request(key=1)))
    assert again.removed == {}
    assert again.revoked == {"1"}


def test_a_second_token_for_a_name_revokes_what_the_first_board_had():
    register = fold([_issued(1), _issued(2, _claims(nonce=2), _request(key=1))])
    assert register.revoked == {"1"}
    with pytest.raises(EnrolmentError, match="used already"):
        admit_enrolment(register, _claims(), _request())


def test_an_older_token_is_worth_nothing_once_a_newer_one_was_used():
    lost, newer = _claims(nonce=1, issued=100.0), _claims(nonce=2, issued=101.0)
    register = fold([_issued(1, newer, _request(key=1))])
    with pytest.raises(EnrolmentError, match="a newer token for 'kitchen' was used already"):
        admit_enrolment(register, lost, _request())
    assert admit_enrolment(fold([_issued(1, lost)]), newer, _request(key=1)) == Wanted()


def test_a_renewal_is_for_the_same_name_and_leaves_the_old_certificate_alone():
    register = fold([_issued(1)])
    assert admit_renewal(register, _facts(), _request(key=1)) == Wanted()
    renewed = CertificateIssued(
        serial="2",
        name="kitchen",
        board="rpi5",
        key_sha256=_request(key=1).key_sha256,
        certificate="certificate 2",
        at_unix_s=400.0,
        expires_unix_s=2000.0,
    )
    register = apply(register, renewed)
    assert register.revoked == frozenset()
    assert admit_renewal(register, _facts(), _request(key=1)) == Repeated("certificate 2")
    with pytest.raises(EnrolmentError, match="asks for a certificate for 'garage'"):
        admit_renewal(register, _facts(), _request("garage"))
    with pytest.raises(EnrolmentError, match="is a coordinator: renew it with fedpt fleet rotate"):
        admit_renewal(register, _facts("coordinator", 9, "coordinator"), _request("coordinator"))


def test_the_list_names_everybody_once_with_their_state():
    events = [_issued(1), _issued(2, _claims("garage", 2), _request("garage", 1), at=5000.0)]
    got = members(fold(events), now_unix_s=2000.0)
    assert [(one.name, one.state) for one in got] == [
        ("garage", "enrolled"),
        ("kitchen", "expired"),
    ]
    got = members(fold([*events, NameRemoved(name="garage", at_unix_s=6000.0)]), 2000.0)
    assert got[0].state == "removed"


class Registers(RuleBasedStateMachine):
    """Boards enrol, renew and are removed in any order; the fold is compared with plain sets."""

    def __init__(self):
        super().__init__()
        self.register = Register()
        self.clock = 1000.0
        self.serial = 0
        self.good: dict[str, set[str]] = {}
        self.bad: set[str] = set()
        self.used: set[tuple[str, str]] = set()
        self.newest_token: dict[str, float] = {}

    def _tick(self):
        self.clock += 1
        return self.clock

    @rule(
        name=st.sampled_from(["a", "b"]), nonce=st.integers(0, 3), age=st.integers(0, 5),
        key=st.integers(0, 2),
    )  # fmt: skip
    def enrol(self, name, nonce, age, key):
        claims = _claims(name, nonce, issued=self._tick() - age)
        request = _request(name, key)
        try:
            admitted = admit_enrolment(self.register, claims, request)
        except EnrolmentError:
            return
        if isinstance(admitted, Repeated):
            assert admitted.certificate.removeprefix("certificate ") in self.good[name]
            return
        assert (name, claims.nonce) not in self.used
        assert claims.issued_unix_s >= self.newest_token.get(name, 0.0)
        self.newest_token[name] = claims.issued_unix_s
        self.serial += 1
        self.used.add((name, claims.nonce))
        self.register = apply(self.register, _issued(self.serial, claims, request, self.clock))
        self.bad |= self.good.get(name, set())
        self.good[name] = {str(self.serial)}

    @rule(name=st.sampled_from(["a", "b"]), key=st.integers(0, 2))
    def renew(self, name, key):
        known = self.register.of_name(name)
        if not known:
            return
        try:
            facts = _facts(name, int(known[-1].serial))
            admitted = admit_renewal(self.register, facts, _request(name, key))
        except EnrolmentError:
            assert known[-1].serial in self.bad
            return
        if admitted == Wanted():
            self.serial += 1
            event = _issued(self.serial, _claims(name), _request(name, key), self._tick())
            renewal = {"nonce": "", "token_issued_unix_s": 0.0}
            event = CertificateIssued(**{**_as_dict(event), **renewal})
            self.register = apply(self.register, event)
            self.good[name].add(event.serial)

    @rule(name=st.sampled_from(["a", "b"]))
    def remove(self, name):
        self.register = apply(self.register, NameRemoved(name=name, at_unix_s=self._tick()))
        self.bad |= self.good.pop(name, set())

    @invariant()
    def revoked_is_what_was_replaced_or_removed(self):
        assert self.register.revoked == self.bad


def _as_dict(event):
    return {name: getattr(event, name) for name in event.__struct_fields__}


TestRegisters = Registers.TestCase
TestRegisters.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)

"""Wi-Fi keys as every device computes them; names that cannot be are refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.fleet.network import Wifi, host_name, wifi_from_passphrase
from fedpt.errors import FedptError, FleetError
from fedpt.ids import is_name


def test_a_passphrase_becomes_the_key_that_the_standard_gives_as_its_example() -> None:
    # IEEE 802.11i, annex H.4.2
    wifi = wifi_from_passphrase("IEEE", "password", "US")
    assert wifi.psk == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"


def test_a_key_is_taken_as_it_is() -> None:
    assert wifi_from_passphrase("home", "AB" * 32, "DE") == Wifi("home", "ab" * 32, "DE")


@pytest.mark.parametrize(
    ("ssid", "passphrase", "country", "said"),
    [
        ("", "password", "DE", "has 0 bytes"),
        ("é" * 17, "password", "DE", "has 34 bytes"),
        ("a\nb", "password", "DE", "nobody sees"),
        ("a\ud800", "password", "DE", "no text"),
        ("home", "seven77", "DE", "8 to 63 ASCII characters"),
        ("home", "x" * 65, "DE", "8 to 63 ASCII characters"),
        ("home", "pässword", "DE", "8 to 63 ASCII characters"),
        ("home", "password", "de", "two capital letters"),
        ("home", "password", "", "two capital letters"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    ssid: str, passphrase: str, country: str, said: str
) -> None:
    with pytest.raises(FleetError, match=said) as caught:
        wifi_from_passphrase(ssid, passphrase, country)
    assert "\n" not in str(caught.value)


def test_a_refused_passphrase_is_not_repeated() -> None:
    with pytest.raises(FleetError) as caught:
        wifi_from_passphrase("home", "pässword", "DE")
    assert "ssword" not in str(caught.value)


@pytest.mark.parametrize("device", ["a_b", "a.b", "-a", "a-", "a" * 64, "", "a b", "ä"])
def test_what_no_host_can_be_called_is_refused(device: str) -> None:
    with pytest.raises(FleetError, match="cannot be called"):
        host_name(device)


@given(st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?", fullmatch=True))
def test_letters_digits_and_inner_hyphens_make_a_host_name(device: str) -> None:
    assert host_name(device) == device.lower()
    assert is_name(device)


@given(st.text(), st.text(), st.text(max_size=3))
def test_any_text_gives_a_network_or_one_clear_error(ssid: str, word: str, country: str) -> None:
    refusal = ""
    psk = "0" * 64
    try:
        psk = wifi_from_passphrase(ssid, word, country).psk
    except FedptError as error:
        refusal = str(error)
    assert len(bytes.fromhex(psk)) == 32
    assert "\n" not in refusal

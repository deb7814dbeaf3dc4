"""The fleet's folder: records are read back, and what is damaged is named in one line."""

import msgspec
import pytest

from deploy.fleet.fleet_folder import DeviceRecord, Fleet, require_new_name
from fedpt.errors import FleetError, UsageError


def _record(name="kitchen", **more):
    return DeviceRecord(name=name, board="rpi5", role="device", added_unix_s=1.0, **more)


def test_boards_are_listed_by_name(fleet):
    for name in ("kitchen", "attic"):
        fleet.write_device(_record(name))
    assert [one.name for one in fleet.devices()] == ["attic", "kitchen"]
    assert fleet.device("attic") == _record("attic")


def test_an_unknown_board_is_told_with_those_that_there_are(fleet):
    with pytest.raises(UsageError, match=r"no board 'x' in .*; there are: none yet"):
        fleet.device("x")
    fleet.write_device(_record())
    with pytest.raises(UsageError, match="there are: kitchen"):
        fleet.device("x")


def test_a_name_is_free_again_after_its_removal(fleet):
    fleet.write_device(_record())
    with pytest.raises(UsageError, match="is in the fleet already"):
        fleet.require_free("kitchen")
    fleet.write_device(msgspec.structs.replace(_record(), is_removed=True))
    fleet.require_free("kitchen")


@pytest.mark.parametrize("content", [b"", b"{}", b'{"name": "../x"}', b"\xff" * 30])
def test_a_damaged_record_is_named(fleet, content):
    fleet.write_device(_record())
    path = fleet.device_folder("kitchen") / "device.json"
    path.write_bytes(content)
    with pytest.raises(FleetError, match=r"cannot use .*device\.json"):
        fleet.devices()


def test_a_folder_without_a_fleet_says_how_to_make_one(tmp_path):
    with pytest.raises(FleetError, match=r"no fleet in .*; make one: fedpt fleet init"):
        Fleet.open(tmp_path)


@pytest.mark.parametrize("name", ["", "a/b", "a b", "-x", "é", "x" * 64, "#", "+"])
def test_what_cannot_be_a_name_is_refused(name):
    with pytest.raises(UsageError, match="not a name for a board"):
        require_new_name(name)


def test_the_servers_own_names_are_taken():
    with pytest.raises(UsageError, match="a name of the server's own"):
        require_new_name("coordinator")

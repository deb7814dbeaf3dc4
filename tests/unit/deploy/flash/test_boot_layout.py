import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.flash.boot_layout import BootVolume, System, doubt, recognise, with_instance
from fedpt.errors import ImageError
from tests.fakes.disk_images import OLD_PI_FILES, PI_CMDLINE, PI_FILES, UBUNTU_FILES


def _volume(files: dict[str, str], label: str = "bootfs") -> BootVolume:
    return BootVolume(label, frozenset(files), files.get("cmdline.txt", ""))


def test_raspberry_pi_os_is_known_by_its_files() -> None:
    assert recognise(_volume(PI_FILES)) is System.RASPBERRY_PI_OS


@pytest.mark.parametrize("label", ["system-boot", "SYSTEM-BOOT", "CIDATA", "cidata"])
def test_ubuntu_is_known_by_its_label_although_it_has_the_same_files(label: str) -> None:
    assert recognise(_volume(UBUNTU_FILES, label)) is System.UBUNTU


def test_an_efi_partition_belongs_to_nobody_here() -> None:
    assert recognise(_volume({"efi/": ""}, "ESP")) is None


@pytest.mark.parametrize(
    "files",
    [
        OLD_PI_FILES,
        OLD_PI_FILES | {"user-data": "#cloud-config"},  # put there by hand: nobody reads it
        {"cmdline.txt": "init=/usr/lib/raspi-config/init_resize.sh", "config.txt": ""},
        {"cmdline.txt": PI_CMDLINE, "config.txt": ""},
    ],
)
def test_a_system_that_would_not_read_the_bundle_is_refused(files: dict[str, str]) -> None:
    with pytest.raises(ImageError, match="no cloud-init"):
        recognise(_volume(files))


def test_a_command_line_with_the_data_source_is_hint_enough() -> None:
    files = {"cmdline.txt": "root=x ds=nocloud;i=1", "config.txt": ""}
    assert recognise(_volume(files)) is System.RASPBERRY_PI_OS


def test_ubuntu_without_user_data_is_doubted() -> None:
    assert doubt(System.UBUNTU, UBUNTU_FILES) is None
    assert "desktop" in (doubt(System.UBUNTU, {"cmdline.txt"}) or "")
    assert doubt(System.RASPBERRY_PI_OS, set()) is None


def test_the_instance_is_named_at_the_end_of_the_line() -> None:
    assert with_instance("a=1 rootwait\n", "id-1") == "a=1 rootwait ds=nocloud;i=id-1\n"
    assert with_instance("a=1", "id-1") == "a=1 ds=nocloud;i=id-1\n"


def test_an_older_data_source_is_replaced_and_others_stay() -> None:
    assert with_instance("ds=nocloud;i=old a ds=nocloudy", "x") == "a ds=nocloudy ds=nocloud;i=x\n"


@pytest.mark.parametrize("line", ["", "\n", "ds=nocloud;i=1\n"])
def test_an_empty_command_line_is_refused(line: str) -> None:
    with pytest.raises(ImageError, match="empty"):
        with_instance(line, "x")


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1)


@given(st.lists(words, min_size=1).map(" ".join), words)
def test_naming_the_instance_twice_is_as_once(line: str, instance: str) -> None:
    try:
        once = with_instance(line, instance)
    except ImageError:
        return
    assert with_instance(once, instance) == once
    assert once.count("\n") == 1
    assert once.endswith(f" ds=nocloud;i={instance}\n")

"""Judgements on a board's heat, power and swap, and looks at a made-up kernel's files."""

from pathlib import Path

import pytest

from edge_runtime.board_checks import (
    judge_swap,
    judge_temperature,
    judge_throttling,
    swap,
    temperature,
)
from fedpt.doctor import Level

GB = 1_000_000_000


@pytest.mark.parametrize(("celsius", "level"), [(45, "ok"), (80, "warning"), (90, "fault")])
def test_a_hot_board_is_told(celsius: float, level: Level) -> None:
    assert judge_temperature(celsius).level == level


def test_the_hottest_sensor_counts(tmp_path: Path) -> None:
    assert list(temperature(tmp_path)) == []
    for zone, text in (("0", "45200\n"), ("1", "83100\n"), ("2", "broken")):
        folder = tmp_path / "thermal" / f"thermal_zone{zone}"
        folder.mkdir(parents=True)
        (folder / "temp").write_text(text)
    (finding,) = temperature(tmp_path)
    assert (finding.level, finding.what) == ("warning", "temperature: 83 °C")


@pytest.mark.parametrize(
    ("bits", "level", "part"),
    [
        (0x0, "ok", "neither"),
        (0x1, "fault", "power: the voltage is too low"),
        (0x50000, "warning", "the voltage is too low, the processor is throttled"),
        (0x50005, "fault", "the voltage is too low, the processor is throttled"),
    ],
)
def test_the_firmwares_bits_are_told_in_words(bits: int, level: Level, part: str) -> None:
    finding = judge_throttling(bits)
    assert finding.level == level
    assert part in finding.what


@pytest.mark.parametrize(
    ("devices", "memory", "level"),
    [
        ([], 1 * GB, "warning"),
        ([], 8 * GB, "ok"),
        (["/dev/zram0"], 1 * GB, "ok"),
        (["/dev/mmcblk0p3"], 1 * GB, "warning"),
        (["/dev/mmcblk0p3", "/dev/zram0"], 1 * GB, "ok"),
        (["/var/swap"], 1 * GB, "ok"),
    ],
)
def test_swap_is_wanted_in_memory_not_on_a_card(
    devices: list[str], memory: int, level: Level
) -> None:
    assert judge_swap(devices, memory).level == level


def test_the_kernels_list_of_swaps_is_read(tmp_path: Path) -> None:
    path = tmp_path / "swaps"
    path.write_text("Filename Type Size Used Priority\n/dev/zram0 partition 1 0 100\n\n")
    (finding,) = swap(path)
    assert finding.what == "swap: /dev/zram0"
    assert list(swap(tmp_path / "missing")) == []

"""What a board's files below /sys and /proc say: real trees of files, as boards have them."""

import math
import os
import threading
from pathlib import Path

import pytest

from edge_runtime.board_sensors import BoardSensors, hottest_celsius, is_on_mains
from edge_runtime.training_conditions import Readings

TRAINING = 4242


def lay(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def supply(name: str, **files: str) -> dict[str, str]:
    return {f"{name}/{file}": text for file, text in files.items()}


BATTERY = supply("BAT0", type="Battery", status="Discharging")
CHARGING = supply("BAT0", type="Battery", status="Charging")
MAINS = supply("AC", type="Mains", online="1")
NO_MAINS = supply("AC", type="Mains", online="0")
USB = supply("usb", type="USB", online="0")
UPS = supply("ups", type="UPS", status="Discharging")
MOUSE = supply("mouse", type="Battery", scope="Device", status="Discharging")
VAGUE = supply("BAT0", type="Battery", status="Unknown")


@pytest.mark.parametrize(
    ("supplies", "told"),
    [
        ([], None),
        ([USB], None),
        ([MOUSE], None),
        ([MOUSE, USB], None),
        ([BATTERY], False),
        ([UPS], False),
        ([CHARGING], True),
        ([BATTERY, MAINS], True),
        ([BATTERY, NO_MAINS], False),
        ([CHARGING, USB], True),
        ([VAGUE], None),
        ([VAGUE, NO_MAINS], False),
        ([VAGUE, MAINS], True),
    ],
)
def test_a_board_with_a_battery_says_whether_it_has_mains_power(
    tmp_path: Path, supplies: list[dict[str, str]], told: bool | None
) -> None:
    for one in supplies:
        lay(tmp_path, one)
    assert is_on_mains(tmp_path) is told


def test_the_hottest_zone_counts(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "thermal/thermal_zone0/type": "cpu-thermal",
            "thermal/thermal_zone0/temp": "61350",
            "thermal/thermal_zone1/temp": "58000",
            "hwmon/hwmon0/temp1_input": "90000",
        },
    )
    assert hottest_celsius(tmp_path) == 61.4


def test_sensors_that_are_off_broken_or_always_hot_do_not_count(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "thermal/thermal_zone0/temp": "-274000",
            "thermal/thermal_zone1/temp": "no data",
            "thermal/thermal_zone2/type": "PMIC-Die",
            "thermal/thermal_zone2/temp": "100000",
            "thermal/thermal_zone3/temp": "0",
        },
    )
    (tmp_path / "thermal" / "thermal_zone4").mkdir()
    assert hottest_celsius(tmp_path) == 0


def test_where_there_are_no_zones_hwmon_is_asked(tmp_path: Path) -> None:
    lay(tmp_path, {"hwmon/hwmon0/temp1_input": "47000", "hwmon/hwmon1/temp2_input": "52500"})
    assert hottest_celsius(tmp_path) == 52.5


def test_a_board_without_any_files_tells_its_disk_only(tmp_path: Path) -> None:
    readings = BoardSensors(tmp_path, root=tmp_path / "nothing").read(TRAINING)
    assert readings == Readings(free_disk_bytes=readings.free_disk_bytes)
    assert readings.free_disk_bytes is not None
    assert BoardSensors(tmp_path / "gone", root=tmp_path).read() == Readings()


def test_what_training_has_counts_as_free_memory(tmp_path: Path) -> None:
    lay(
        tmp_path,
        {
            "proc/meminfo": "MemTotal:  4000000 kB\nMemAvailable:  1000000 kB",
            f"proc/{TRAINING}/status": "VmRSS:\t700000 kB\nRssAnon:\t500000 kB",
        },
    )
    sensors = BoardSensors(tmp_path, root=tmp_path)
    assert sensors.read().free_memory_bytes == 1_000_000 * 1024
    assert sensors.read(TRAINING).free_memory_bytes == 1_500_000 * 1024


def thread(process: int, number: int, state: str) -> dict[str, str]:
    return {f"proc/{process}/task/{number}/stat": f"{number} (odd ) name (R) {state} 1 2 3"}


def test_load_is_of_others_for_each_core(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/loadavg": "6.00 5.00 4.00 7/300 999"})
    sensors = BoardSensors(tmp_path, root=tmp_path, cores=2)
    assert sensors.read(TRAINING, now=0).load == 3.0


def test_load_that_training_and_answers_make_is_left_out_as_the_kernel_reckons_it(
    tmp_path: Path,
) -> None:
    for number, state in enumerate("RRDS"):
        lay(tmp_path, thread(TRAINING, 100 + number, state))
    lay(tmp_path, thread(os.getpid(), 1, "R"))
    lay(tmp_path, thread(os.getpid(), threading.get_native_id(), "R"))  # it only looks
    lay(tmp_path, {"proc/loadavg": "4.00 0 0"})
    sensors = BoardSensors(tmp_path, root=tmp_path, cores=1)
    assert sensors.read(TRAINING, now=0).load == 4.0  # nobody knows who made it before
    loads = [sensors.read(TRAINING, now=second).load for second in range(2, 602, 2)]
    after_a_minute = loads[29]
    assert after_a_minute == pytest.approx(4 / math.e, abs=0.01)
    assert loads == sorted(loads, reverse=True)
    assert loads[-1] == 0
    for path in (tmp_path / "proc" / str(TRAINING)).rglob("stat"):
        path.write_text("1 (python) T 1 2 3")  # halted: it makes no more
    lay(tmp_path, thread(os.getpid(), 1, "S"))
    assert sensors.read(TRAINING, now=660).load == pytest.approx(4 - 4 / math.e, abs=0.01)


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    readings = BoardSensors(tmp_path).read(os.getpid())
    assert readings.load is not None
    assert readings.load >= 0
    assert readings.free_memory_bytes is not None
    assert readings.free_memory_bytes > 0

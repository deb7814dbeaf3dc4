"""The kernel's figures, as far as there are any."""

from pathlib import Path

from fedpt.kernel_memory import memory_bytes


def test_the_kernels_memory_figures_are_read(tmp_path: Path) -> None:
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  2000 kB\nHugePages_Total:  3\nMemAvailable: 1000 kB\nodd\n")
    assert memory_bytes(path) == {"MemTotal": 2_048_000, "MemAvailable": 1_024_000}
    assert memory_bytes(tmp_path / "missing") == {}


def test_a_process_sees_its_own_figures() -> None:
    own = memory_bytes(Path("/proc/self/status"))
    assert 0 < own["VmRSS"] <= own["VmHWM"]

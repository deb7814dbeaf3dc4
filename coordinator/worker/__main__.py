"""`python -m coordinator.worker settings.json`: a worker that the coordinator starts and ends."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from coordinator.settings import CoordinatorSettings
from coordinator.worker.daemon import LogitWorker
from fedpt.drivers.child_process import end_with_parent
from fedpt.drivers.service_manager import ServiceManager
from fedpt.errors import FedptError
from fedpt.log_setup import configure


def run_until_signal(settings: CoordinatorSettings, service: ServiceManager | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        FedptError: The model cannot be loaded, or the broker not be reached.
    """
    worker = LogitWorker(settings, service)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: worker.stop())
    worker.run()


def _main(arguments: Sequence[str]) -> None:
    """Started by the coordinator: settings as JSON in a file."""
    end_with_parent()
    configure()
    run_until_signal(CoordinatorSettings.model_validate_json(Path(arguments[0]).read_text()))


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except FedptError as failure:
        sys.exit(str(failure))

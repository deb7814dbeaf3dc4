"""`python -m edge_runtime.updates FOLDER`: do the installing job that lies in FOLDER.

Started by the device daemon or the command line, and ends with it. Progress goes to standard
output, `DONE TOTAL NAME` a line.
"""

import sys
import time
from pathlib import Path
from typing import Final

from edge_runtime.updates.fetching import (
    Fetcher,
    folder_fetcher,
    http_fetcher,
    new_client,
    require_url,
)
from edge_runtime.updates.installing import Device, prepare
from edge_runtime.updates.job import PrepareJob, PrepareResult
from edge_runtime.updates.release_store import ReleaseStore
from fedpt.drivers.child_process import end_with_parent
from fedpt.errors import BlobError, FedptError, ReleaseError
from fedpt.job_folder import read_job, write_result
from fedpt.progress import Progress
from fedpt.releases import ReleaseFile

_REPORT_EVERY_S: Final = 0.5


class _Reporter:
    """Prints progress now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self._last >= _REPORT_EVERY_S or progress.done == progress.total:
            self._last = now
            sys.stdout.write(f"{progress.done} {progress.total} {progress.note}\n")
            sys.stdout.flush()


def main(folder: Path) -> None:
    """Do the job; whatever is expected to go wrong is in its result.

    Raises:
        FedptError: There is no job, or its result cannot be written.
    """
    job = read_job(folder, PrepareJob)
    try:
        prepare(job.signed, _device(job), _fetcher(job.source), on_step=_say_step)
    except FedptError as error:
        is_final = isinstance(error, ReleaseError)
        write_result(folder, PrepareResult(fault=str(error), is_final=is_final))
    else:
        write_result(folder, PrepareResult())


def _device(job: PrepareJob) -> Device:
    return Device(
        store=ReleaseStore(Path(job.releases)),
        trust_file=Path(job.trust_file),
        runtime=job.runtime,
        small=Path(job.small),
        base_weights=job.base_weights,
        reserve_mb=job.reserve_mb,
        tolerance=job.tolerance,
    )


def _fetcher(source: str) -> Fetcher:
    if not source:
        return _expect_delivery
    if "://" in source:
        require_url(source)
        return http_fetcher(new_client(), source, _Reporter())
    return folder_fetcher(Path(source))


def _expect_delivery(file: ReleaseFile, _target: Path) -> None:
    raise BlobError(f"{file.path} was not delivered as a whole")


def _say_step(name: str) -> None:
    sys.stdout.write(f"0 0 {name}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    end_with_parent()
    try:
        main(Path(sys.argv[1]))
    except FedptError as failure:
        sys.exit(str(failure))

"""Who a logit worker is to the broker: its name, and the files that prove it.

Devices send a session's further requests to the topic with the worker's name, and a broker that
knows its clients by their certificates lets a worker read no other: name and certificate agree.
"""

from uuid import uuid4

from coordinator.settings import CoordinatorSettings
from fedpt.errors import SettingsError
from fedpt.ids import is_name
from fedpt.settings import BrokerSettings


def worker_identity(settings: CoordinatorSettings) -> tuple[str, BrokerSettings]:
    """The worker's name, and how it reaches the broker.

    Raises:
        SettingsError: Its certificate is missing, the coordinator's, or another's.
        ArtifactError: Its certificate cannot be read.
    """
    worker, broker = settings.worker, settings.broker
    if worker.certificate_file is None:
        if broker.certificate_file is not None:
            raise SettingsError(
                "a logit worker needs a certificate of its own, for the coordinator has the"
                " broker's: set worker.certificate_file and worker.key_file"
            )
        return worker.name or f"worker-{uuid4().hex[:12]}", broker
    from fedpt.certificate_file import read_facts

    name = read_facts(worker.certificate_file).name
    if worker.name not in (None, name) or not is_name(name):
        wanted = f"the worker {worker.name!r}" if worker.name else "any worker"
        raise SettingsError(
            f"{worker.certificate_file} is for {name!r}, not for {wanted}: take the certificate of"
            " that name, or change worker.name (--name)"
        )
    own = {"certificate_file": worker.certificate_file, "key_file": worker.key_file}
    return name, broker.model_copy(update=own)

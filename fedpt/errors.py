"""Every error this project raises on purpose.

```
FedptError                      exit 1   something expected went wrong; one line says what
├── UsageError                  exit 2   the command was called wrongly
│   ├── LongQuestionError       exit 2   a question does not fit into the model's context
│   └── SettingsError           exit 2   configuration: every fault found, together
├── ArtifactError               exit 1   a file is not what it should be
│   ├── ModelFileError                   a model file is missing, truncated or of no use here
│   ├── AdapterError                     an adapter is damaged or does not fit
│   │   └── WrongBaseError               an adapter was trained on another base model
│   ├── VocabularyMismatchError          two models do not share their vocabulary
│   ├── DataFileError                    a data file has a bad line
│   └── ImageError                       a disk image cannot be used
├── WireError                   exit 1   what came over the network cannot be used
│   ├── MalformedMessageError            bytes that are no message of ours
│   └── BlobError                        a blob is too large or is not what its hash says
├── BrokerError                 exit 1   the MQTT broker: unreachable, refused, port in use
├── DeviceDownError             exit 1   no device daemon runs on this board
├── LargeModelError             exit 1   the large model's logits could not be had
│   ├── SessionLostError                 a logit worker does not hold the conversation
│   ├── TooLongError                     a conversation is longer than a logit worker's context
│   ├── TooMuchError                     more logits are wanted than a logit worker tells
│   ├── BusyError                        a logit worker has too much to do
│   └── NotServedError                   a logit worker has another model, vocabulary or adapter
├── StorageError                exit 1   a file could not be written: disk full, no permission
├── FleetError                  exit 1   a fleet's folder, bundle or key cannot be made or used
├── EnrolmentError              exit 1   an identity is refused or could not be had
├── ReleaseError                exit 1   a release cannot be accepted or installed
├── BlockDeviceError            exit 1   a disk must not or cannot be written
└── TrainingError               exit 1   local training or distillation failed
```

`code` crosses the wire and never changes its meaning. Command lines print the message as one line
and exit with `exit_code`; daemons log it and go on.
"""

from typing import ClassVar


class FedptError(Exception):
    """Base of all; never raised itself."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1


class UsageError(FedptError):
    """The command was called with something that cannot work."""

    code = "usage"
    exit_code = 2


class LongQuestionError(UsageError):
    """A question is longer than the context of the model that shall answer it."""

    code = "long_question"


class SettingsError(UsageError):
    """Configuration that cannot be used; the message lists every fault."""

    code = "settings"


class ArtifactError(FedptError):
    """A file is not what it should be."""

    code = "artifact"


class ModelFileError(ArtifactError):
    """A model file is missing, truncated, or of a kind that is not supported."""

    code = "model_file"


class AdapterError(ArtifactError):
    """A LoRA adapter is damaged or does not fit its base."""

    code = "adapter"


class WrongBaseError(AdapterError):
    """An adapter was trained on another base model than the one it meets."""

    code = "wrong_base"


class VocabularyMismatchError(ArtifactError):
    """Two models that must share a vocabulary do not."""

    code = "vocabulary_mismatch"


class DataFileError(ArtifactError):
    """A JSONL file has a line that is no example."""

    code = "data_file"


class ImageError(ArtifactError):
    """A disk image cannot be used."""

    code = "image"


class WireError(FedptError):
    """Something that came over the network cannot be used."""

    code = "wire"


class MalformedMessageError(WireError):
    """Bytes that are not a message of this protocol."""

    code = "malformed"


class BlobError(WireError):
    """A blob is larger than allowed or not what its hash says."""

    code = "blob"


class BrokerError(FedptError):
    """The MQTT broker cannot be reached, refuses us, or its port is taken."""

    code = "broker"


class DeviceDownError(FedptError):
    """No device daemon listens on this board."""

    code = "device_down"


class LargeModelError(FedptError):
    """The large model's logits could not be had in time, or were refused."""

    code = "large_model"


class SessionLostError(LargeModelError):
    """A logit worker does not hold what comes before a request's position."""

    code = "session_lost"


class TooLongError(LargeModelError):
    """A conversation does not fit into a logit worker's context."""

    code = "too_long"


class TooMuchError(LargeModelError):
    """More rows, or more logits a row, are wanted than a logit worker tells anybody."""

    code = "too_much"


class BusyError(LargeModelError):
    """A logit worker has too much to do, or this device asks too fast; later it may answer."""

    code = "busy"


class NotServedError(LargeModelError):
    """A logit worker has another model, vocabulary or adapter than the one that is asked for."""

    code = "not_served"


class StorageError(FedptError):
    """A file could not be written."""

    code = "storage"


class FleetError(FedptError):
    """A fleet's folder, a bundle or a key cannot be made or used."""

    code = "fleet"


class EnrolmentError(FedptError):
    """A certificate is refused, or could not be had."""

    code = "enrolment"


class ReleaseError(FedptError):
    """A release cannot be accepted or installed; what is installed stays as it is."""

    code = "release"


class BlockDeviceError(FedptError):
    """A disk must not or cannot be written."""

    code = "block_device"


class TrainingError(FedptError):
    """Training or distillation could not start or did not finish."""

    code = "training"

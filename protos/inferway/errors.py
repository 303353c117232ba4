"""Every error inferway raises, as one tree.

The branches say what a caller can do; the leaves are facts. Each leaf has its own reason in
`inferway/type/v1/error_reason.proto`, and a test keeps the two in step.

    InferwayError
    ├── InvalidRequest       fix the request                      INVALID_ARGUMENT
    │   ├── InvalidField · InvalidName · InvalidPath · InvalidParameter · MalformedMessage · StreamProtocolViolated
    │   ├── UnknownInput · MissingInput · DuplicateInput · UnknownOutput · UnknownSignature
    │   ├── DatatypeMismatch · ShapeMismatch · ContentsMismatch · MixedContents · InvalidBytesTensor
    │   ├── NanNotAllowed · InvalidBatch · SessionRequired
    │   └── CorruptArtifact · DigestMismatch
    ├── NotFound             name something that exists           NOT_FOUND
    ├── AlreadyExists        choose another name                  ALREADY_EXISTS
    ├── FailedPrecondition   change the state first               FAILED_PRECONDITION
    ├── Aborted              read again, then retry               ABORTED
    ├── OutOfRange           continue from elsewhere              OUT_OF_RANGE
    ├── Overloaded           retry after `retry_after_seconds`    RESOURCE_EXHAUSTED
    ├── Unavailable          retry, elsewhere if possible         UNAVAILABLE
    ├── DeadlineExceeded     allow more time                      DEADLINE_EXCEEDED
    ├── Cancelled            nothing                              CANCELLED
    ├── NotSupported         do without                           UNIMPLEMENTED
    └── Internal             report it                            INTERNAL

A message is for people and may change; `reason` and `metadata` are for programs and do not. Messages and metadata
travel to callers, so they hold nothing internal: no paths of the server, no stack, no text of foreign exceptions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """What is wrong with one field of a request."""

    field: str
    """Path in the request's protobuf form, for example `inputs[0].shape`."""
    description: str
    """What is wrong and what would be right."""


class InferwayError(Exception):
    """Root of the tree; never raised itself.

    `metadata` becomes ErrorInfo.metadata; values are turned into text. `violations` name the fields at fault.
    """

    code: ClassVar[str] = "UNKNOWN"
    """Name of a google.rpc.Code."""
    reason: ClassVar[str] = ""
    """Name of an ErrorReason without its prefix; empty for branches."""
    default_retry_after_seconds: ClassVar[float | None] = None
    """Sent as RetryInfo; None means that a retry of the same request is no use."""

    def __init__(
        self,
        message: str,
        *,
        violations: tuple[FieldViolation, ...] = (),
        retry_after_seconds: float | None = None,
        **metadata: object,
    ) -> None:
        """Keeps the parts; `retry_after_seconds` overrides the default of the class."""
        super().__init__(message)
        self.message = message
        self.violations = violations
        self.metadata = {key: str(value) for key, value in metadata.items()}
        self.retry_after_seconds = (
            self.default_retry_after_seconds if retry_after_seconds is None else retry_after_seconds
        )

    @property
    def retryable(self) -> bool:
        """The same request may succeed later, and repeating it does no harm that the first attempt did not."""
        return self.retry_after_seconds is not None

    def __str__(self) -> str:
        """The message alone."""
        return self.message


class InvalidRequest(InferwayError):
    """The request can never succeed as it is."""

    code = "INVALID_ARGUMENT"

    @classmethod
    def at(cls, field: str, description: str, **metadata: object) -> Self:
        """Builds the error from one field violation; the message names the field."""
        error = cls(f"{field}: {description}", violations=(FieldViolation(field, description),))
        error.metadata |= {key: str(value) for key, value in metadata.items()}
        return error


class NotFound(InferwayError):
    """Nothing has that name."""

    code = "NOT_FOUND"


class AlreadyExists(InferwayError):
    """Something has that name already."""

    code = "ALREADY_EXISTS"


class FailedPrecondition(InferwayError):
    """The state of a resource forbids it."""

    code = "FAILED_PRECONDITION"


class Aborted(InferwayError):
    """Lost a race: read the state again, then decide."""

    code = "ABORTED"


class OutOfRange(InferwayError):
    """Asked for a position that is not the next."""

    code = "OUT_OF_RANGE"


class Overloaded(InferwayError):
    """Refused to protect what is running."""

    code = "RESOURCE_EXHAUSTED"
    default_retry_after_seconds: ClassVar[float | None] = 0.1


class Unavailable(InferwayError):
    """Cannot be done now."""

    code = "UNAVAILABLE"
    default_retry_after_seconds = 0.1


class DeadlineExceeded(InferwayError):
    """The deadline passed."""

    code = "DEADLINE_EXCEEDED"
    reason = "DEADLINE_EXCEEDED"


class Cancelled(InferwayError):
    """The caller went away."""

    code = "CANCELLED"
    reason = "CANCELLED"


class NotSupported(InferwayError):
    """This server does not do that."""

    code = "UNIMPLEMENTED"
    reason = "NOT_SUPPORTED"


class Internal(InferwayError):
    """A fault that the caller did not cause."""

    code = "INTERNAL"
    reason = "INTERNAL"


class InvalidField(InvalidRequest):
    """A field is missing or out of bounds."""

    reason = "INVALID_FIELD"


class InvalidName(InvalidRequest):
    """A resource name of a form that is not permitted."""

    reason = "INVALID_NAME"


class UnknownInput(InvalidRequest):
    """An input that the signature does not have."""

    reason = "UNKNOWN_INPUT"


class MissingInput(InvalidRequest):
    """An input of the signature is missing."""

    reason = "MISSING_INPUT"


class DuplicateInput(InvalidRequest):
    """The same input twice."""

    reason = "DUPLICATE_INPUT"


class UnknownOutput(InvalidRequest):
    """A requested output that the signature does not have."""

    reason = "UNKNOWN_OUTPUT"


class DatatypeMismatch(InvalidRequest):
    """A tensor of the wrong or an unknown datatype."""

    reason = "DATATYPE_MISMATCH"


class ShapeMismatch(InvalidRequest):
    """A tensor of the wrong shape."""

    reason = "SHAPE_MISMATCH"


class ContentsMismatch(InvalidRequest):
    """Contents that are not as long as shape and datatype say."""

    reason = "CONTENTS_MISMATCH"


class MixedContents(InvalidRequest):
    """Raw and typed contents in one request."""

    reason = "MIXED_CONTENTS"


class InvalidBytesTensor(InvalidRequest):
    """Length prefixes of a BYTES tensor that do not add up."""

    reason = "INVALID_BYTES_TENSOR"


class NanNotAllowed(InvalidRequest):
    """NaN where the manifest forbids it."""

    reason = "NAN_NOT_ALLOWED"


class InvalidBatch(InvalidRequest):
    """A batch dimension that is zero or differs between inputs."""

    reason = "INVALID_BATCH"


class UnknownSignature(InvalidRequest):
    """A signature that the version does not have."""

    reason = "UNKNOWN_SIGNATURE"


class InvalidParameter(InvalidRequest):
    """A request parameter of the wrong type or with an unusable value."""

    reason = "INVALID_PARAMETER"


class MalformedMessage(InvalidRequest):
    """Bytes that are not the message they should be."""

    reason = "MALFORMED_MESSAGE"


class StreamProtocolViolated(InvalidRequest):
    """A stream message that is not permitted at this point."""

    reason = "STREAM_PROTOCOL"


class InvalidPath(InvalidRequest):
    """A path in a manifest that is not permitted."""

    reason = "INVALID_PATH"


class SessionRequired(InvalidRequest):
    """The model keeps state: it answers streams and sequences only."""

    reason = "SESSION_REQUIRED"


class CorruptArtifact(InvalidRequest):
    """An artifact that cannot be read as what it claims to be."""

    reason = "CORRUPT_ARTIFACT"


class DigestMismatch(InvalidRequest):
    """Bytes that differ from their digest."""

    reason = "DIGEST_MISMATCH"


class ModelNotFound(NotFound):
    """No such model."""

    reason = "MODEL_NOT_FOUND"


class VersionNotFound(NotFound):
    """No such version."""

    reason = "VERSION_NOT_FOUND"


class AliasNotFound(NotFound):
    """No such alias."""

    reason = "ALIAS_NOT_FOUND"


class EndpointNotFound(NotFound):
    """No such endpoint."""

    reason = "ENDPOINT_NOT_FOUND"


class UploadNotFound(NotFound):
    """No such upload: never made, published, or expired."""

    reason = "UPLOAD_NOT_FOUND"


class WorkerNotFound(NotFound):
    """No such worker."""

    reason = "WORKER_NOT_FOUND"


class ArtifactNotFound(NotFound):
    """No such file in the manifest."""

    reason = "ARTIFACT_NOT_FOUND"


class SessionNotFound(NotFound):
    """The session ended or expired, or the gateway that kept it is gone."""

    reason = "SESSION_NOT_FOUND"


class RolloutNotFound(NotFound):
    """No such rollout, or none where the newest or the active one was asked for."""

    reason = "ROLLOUT_NOT_FOUND"


class EndpointExists(AlreadyExists):
    """An endpoint of that name exists."""

    reason = "ENDPOINT_EXISTS"


class VersionUnloaded(FailedPrecondition):
    """The version was unloaded on request."""

    reason = "VERSION_UNLOADED"


class VersionLoadFailed(FailedPrecondition):
    """No worker could load the version."""

    reason = "VERSION_LOAD_FAILED"


class RolloutActive(FailedPrecondition):
    """A rollout drives the endpoint."""

    reason = "ROLLOUT_ACTIVE"


class RolloutState(FailedPrecondition):
    """The rollout's state does not permit it."""

    reason = "ROLLOUT_STATE"


class ResourceInUse(FailedPrecondition):
    """Another resource uses it."""

    reason = "RESOURCE_IN_USE"


class UploadIncomplete(FailedPrecondition):
    """Files of the upload are missing or short."""

    reason = "UPLOAD_INCOMPLETE"


class VersionNotServed(FailedPrecondition):
    """No arm, alias or policy names the version, so no worker loads it."""

    reason = "VERSION_NOT_SERVED"


class DoesNotFit(FailedPrecondition):
    """The worker has no memory for the version."""

    reason = "DOES_NOT_FIT"


class GoldenMismatch(FailedPrecondition):
    """The version answers its own examples differently."""

    reason = "GOLDEN_MISMATCH"


class SessionVersionGone(FailedPrecondition):
    """The version that a session's state belongs to is gone."""

    reason = "SESSION_VERSION_GONE"


class RequestIdReused(FailedPrecondition):
    """The request_id belongs to a different request."""

    reason = "REQUEST_ID_REUSED"


class EtagMismatch(Aborted):
    """The resource changed since it was read."""

    reason = "ETAG_MISMATCH"


class UploadConflict(Aborted):
    """Another call writes the same file."""

    reason = "UPLOAD_CONFLICT"


class SessionTakenOver(Aborted):
    """Another stream has resumed the session."""

    reason = "SESSION_TAKEN_OVER"


class UploadOffsetMismatch(OutOfRange):
    """The chunk does not start where the file ends."""

    reason = "UPLOAD_OFFSET"


class QueueFull(Overloaded):
    """The queue of the version is full."""

    reason = "QUEUE_FULL"


class WouldBeLate(Overloaded):
    """The answer would come after the deadline."""

    reason = "WOULD_BE_LATE"


class UploadTooLarge(Overloaded):
    """A file, or all of them, are over the limit."""

    reason = "UPLOAD_TOO_LARGE"
    default_retry_after_seconds = None


class StorageFull(Overloaded):
    """No room to store the upload."""

    reason = "STORAGE_FULL"
    default_retry_after_seconds = 30.0


class TooManyConcurrent(Overloaded):
    """Too many streams, items or uploads at once."""

    reason = "TOO_MANY_CONCURRENT"


class MemoryPressure(Overloaded):
    """The server is short of memory."""

    reason = "MEMORY_PRESSURE"
    default_retry_after_seconds = 1.0


class SlowConsumer(Overloaded):
    """The client did not read its results for too long."""

    reason = "SLOW_CONSUMER"
    default_retry_after_seconds = None


class SessionStateTooLarge(Overloaded):
    """The model's state is larger than a session may keep."""

    reason = "SESSION_STATE_TOO_LARGE"
    default_retry_after_seconds = None


class Throttled(Overloaded):
    """Not sent, because most of what was sent of late was refused; raised by clients only."""

    reason = "THROTTLED"
    default_retry_after_seconds = 1.0


class VersionNotReady(Unavailable):
    """The version is still being loaded."""

    reason = "VERSION_NOT_READY"
    default_retry_after_seconds = 1.0


class NoWorker(Unavailable):
    """No connected worker serves the version."""

    reason = "NO_WORKER"
    default_retry_after_seconds = 0.5


class WorkerLost(Unavailable):
    """The worker went away while it held the request."""

    reason = "WORKER_LOST"


class RunnerCrashed(Unavailable):
    """The model's process ended while it held the request."""

    reason = "RUNNER_CRASHED"


class Draining(Unavailable):
    """The server is shutting down."""

    reason = "DRAINING"
    default_retry_after_seconds = 0.0


class NotSynchronised(Unavailable):
    """The service has no usable snapshot yet."""

    reason = "NOT_SYNCHRONISED"
    default_retry_after_seconds = 1.0


class StoreUnavailable(Unavailable):
    """The registry's database cannot be reached."""

    reason = "STORE_UNAVAILABLE"
    default_retry_after_seconds = 1.0


class SessionStoreUnavailable(Unavailable):
    """The store of the sessions cannot be reached."""

    reason = "SESSION_STORE_UNAVAILABLE"


class Unreachable(Unavailable):
    """No connection to the server could be made; raised by clients only."""

    reason = "UNREACHABLE"


class ModelFailed(Internal):
    """The model raised an error on this input."""

    reason = "MODEL_FAILED"


class Quarantined(Internal):
    """The request ended the model's process twice."""

    reason = "QUARANTINED"


def _leaves(root: type[InferwayError]) -> dict[str, type[InferwayError]]:
    found = {root.reason: root} if root.reason and "reason" in root.__dict__ else {}
    for child in root.__subclasses__():
        found |= _leaves(child)
    return found


BY_REASON: dict[str, type[InferwayError]] = _leaves(InferwayError)
"""Every class that has a reason, by it."""

BY_CODE: dict[str, type[InferwayError]] = {branch.code: branch for branch in InferwayError.__subclasses__()}
"""The branch for each code, for statuses whose reason is unknown."""

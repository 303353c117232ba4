"""Turns errors into `google.rpc.Status` and back: the two functions are inverse to each other.

Code names of the error tree are those of google.rpc.Code, so there is no table to forget.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2
from google.rpc.status_pb2 import Status

from inferway.errors import BY_CODE, BY_REASON, FieldViolation, InferwayError, Internal

DOMAIN = "inferway"


def to_status(error: InferwayError) -> Status:
    """Returns the status of `error`: always an ErrorInfo; BadRequest and RetryInfo where they apply."""
    status = Status(code=code_pb2.Code.Value(error.code), message=error.message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata))
    if error.violations:
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in error.violations
        ]
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_seconds is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_seconds * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def from_status(status: Status) -> InferwayError:
    """Returns the error that `status` stands for.

    A status of another origin becomes the branch of its code, or Internal. Unknown reasons of ours likewise, so that
    an old client understands a new server as far as the code goes.
    """
    info, violations, retry_after = error_details_pb2.ErrorInfo(), list[FieldViolation](), None
    for detail in status.details:
        bad_request, retry = error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            continue
        if detail.Unpack(bad_request):
            violations += [FieldViolation(v.field, v.description) for v in bad_request.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    code = code_pb2.Code.Name(status.code) if status.code in code_pb2.Code.values() else "INTERNAL"
    kind = BY_REASON.get(info.reason) if info.domain == DOMAIN else None
    kind = kind if kind is not None and kind.code == code else BY_CODE.get(code, Internal)
    error = kind(status.message, violations=tuple(violations), retry_after_seconds=retry_after)
    error.retry_after_seconds = retry_after
    error.metadata = dict(info.metadata)
    return error

"""Between the protocol's messages and the domain's values, both ways. Checks the form of what comes in."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from inferway import names
from inferway.errors import InvalidField, StoreUnavailable
from inferway.registry.v1 import fleet_service_pb2, registry_service_pb2, watch_service_pb2
from inferway.registry.v1 import resources_pb2 as pb
from inferway.status import from_status
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2
from inferway_chassis.addresses import split_address
from inferway_chassis.routing_feed import digest_of
from inferway_registry import manifest as manifests
from inferway_registry.convert_config import read_labels, version_config, version_config_message
from inferway_registry.convert_rollouts import directive_message, match_rule, match_rule_message, timestamp
from inferway_registry.convert_splits import split_message
from inferway_registry.endpoints import Wish, match_rules
from inferway_registry.fleet import Report, VersionReport, Worker
from inferway_registry.resources import (
    Alias,
    Arm,
    Artifact,
    Endpoint,
    Event,
    Manifest,
    Model,
    ModelVersion,
    Runtime,
    ServingOptions,
    Signature,
    StreamPolicy,
    TensorSpec,
    Upload,
    VersionPolicy,
    VersionState,
    etag,
)
from inferway_registry.routing import RoutingSnapshot
from inferway_registry.split_check import SplitCheck
from inferway_registry.uploads import Draft, Progress

MAX_SALT_CHARACTERS = 64
MAX_WORKER_VERSIONS = 10_000
MAX_BOOT_ID_CHARACTERS = 64
_RUNTIMES = frozenset(map(int, Runtime))
_STATES = frozenset(map(int, VersionState))
_STREAM_POLICIES = frozenset(map(int, StreamPolicy))


def draft(request: registry_service_pb2.CreateUploadRequest, limits: manifests.Limits) -> Draft:
    """The upload that is asked for; raises InvalidName, InvalidField, InvalidPath, UploadTooLarge or NotSupported."""
    model = names.parse(request.model, "models", "model")
    if request.runtime not in _RUNTIMES:
        raise InvalidField.at("runtime", "say what executes the model, for example RUNTIME_TENSORFLOW")
    runtime = Runtime(request.runtime)
    artifacts = (Artifact(a.path, a.size_bytes, a.sha256) for a in request.manifest.artifacts)
    manifest = manifests.check(artifacts, request.manifest.digest, runtime, limits)
    return Draft(model, runtime, manifest, version_config(request.config))


def serving_options(options: pb.ServingOptions) -> ServingOptions:
    """The bounds that are asked for; what they may be is checked later. Raises InvalidField."""
    return ServingOptions(
        max_batch_rows=options.max_batch_rows,
        max_queue_delay_us=_microseconds(options.max_queue_delay) if options.HasField("max_queue_delay") else None,
        buckets=tuple(options.buckets),
        instances=options.instances,
    )


def _microseconds(duration: Duration) -> int:
    return (duration.seconds * 1_000_000_000 + duration.nanos) // 1_000


def version_policy(policy: pb.VersionPolicy) -> VersionPolicy:
    """The policy that is asked for; what its numbers may be is checked later. Raises InvalidField."""
    match policy.WhichOneof("policy"):
        case "latest" if policy.latest < 1:
            raise InvalidField.at("version_policy.latest", "expected 1 or more")
        case "specific" if not policy.specific.versions:
            raise InvalidField.at("version_policy.specific.versions", "names no version; leave the policy out instead")
    return VersionPolicy(latest=policy.latest, every=policy.HasField("all"), specific=tuple(policy.specific.versions))


def version_state(state: int) -> VersionState:
    """The state that is asked for; raises InvalidField."""
    if state not in _STATES:
        raise InvalidField.at("state", "expected STATE_PUBLISHED or STATE_UNLOADED")
    return VersionState(state)


def alias(message: pb.Alias) -> Alias:
    """The alias; raises InvalidName or InvalidField."""
    if message.version < 1:
        raise InvalidField.at("alias.version", "expected a version's number, 1 or more")
    return Alias(names.check_alias(message.alias, "alias.alias"), message.version)


def wish(endpoint: pb.Endpoint) -> Wish:
    """What is wanted of an endpoint; raises InvalidName or InvalidField."""
    if len(endpoint.salt) > MAX_SALT_CHARACTERS or not endpoint.salt.isprintable():
        raise InvalidField.at("endpoint.salt", f"expected at most {MAX_SALT_CHARACTERS} printable characters")
    if endpoint.stream_policy not in _STREAM_POLICIES:
        raise InvalidField.at("endpoint.stream_policy", "expected STREAM_POLICY_FINISH or STREAM_POLICY_MIGRATE")
    arms = tuple(_arm(arm, f"endpoint.arms[{index}]") for index, arm in enumerate(endpoint.arms))
    rules = enumerate(endpoint.match_rules)
    return Wish(
        arms,
        endpoint.salt,
        endpoint.automatic,
        StreamPolicy(endpoint.stream_policy),
        tuple(match_rule(rule, f"endpoint.match_rules[{index}]") for index, rule in rules),
    )


def _arm(arm: pb.Arm, field: str) -> Arm:
    model, number = names.parse_version(arm.version, f"{field}.version")
    return Arm(names.check_segment(arm.arm, f"{field}.arm"), model, number, arm.weight_basis_points)


def report(request: fleet_service_pb2.ReportWorkerRequest) -> Report:
    """What a worker says of itself; raises InvalidName or InvalidField."""
    worker = request.worker
    if not 0 < len(worker.boot_id) <= MAX_BOOT_ID_CHARACTERS:
        raise InvalidField.at("worker.boot_id", f"expected 1 to {MAX_BOOT_ID_CHARACTERS} characters")
    if split_address(worker.address) is None:
        raise InvalidField.at("worker.address", "expected the form host:port")
    if len(worker.versions) > MAX_WORKER_VERSIONS:
        raise InvalidField.at("worker.versions", f"more than {MAX_WORKER_VERSIONS}")
    return Report(
        worker=names.parse(worker.name, "workers", "worker.name"),
        boot_id=worker.boot_id,
        address=worker.address,
        labels=read_labels(dict(worker.labels), "worker.labels"),
        versions=tuple(
            _version_report(status, f"worker.versions[{index}].version") for index, status in enumerate(worker.versions)
        ),
        draining=worker.draining,
    )


def _version_report(status: worker_service_pb2.VersionStatus, field: str) -> VersionReport:
    names.parse_version(status.version, field)
    ready = status.state == worker_service_pb2.LOAD_STATE_READY
    return VersionReport(status.version, ready, status.SerializeToString(), _failure(status))


def _failure(status: worker_service_pb2.VersionStatus) -> str:
    """Why a version could not be loaded. A registry that could not be asked for its files is no failure of it."""
    if status.state != worker_service_pb2.LOAD_STATE_FAILED:
        return ""
    error = from_status(status.error)
    return "" if isinstance(error, StoreUnavailable) else error.message or "it does not say why"


def upload_message(progress: Progress) -> pb.Upload:
    """An upload and how far it is."""
    upload: Upload = progress.upload
    files = zip(upload.manifest.artifacts, progress.committed_bytes, strict=True)
    return pb.Upload(
        name=upload.name,
        model=names.model_name(upload.model),
        runtime=_runtime(upload.runtime),
        manifest=_manifest_message(upload.manifest),
        files=[pb.UploadedFile(path=artifact.path, committed_bytes=committed) for artifact, committed in files],
        expire_time=timestamp(upload.expire_time),
        config=version_config_message(upload.config),
    )


def model_message(model: Model) -> pb.Model:
    """A model."""
    return pb.Model(
        name=model.name,
        aliases=[pb.Alias(alias=label.alias, version=label.number) for label in model.aliases],
        version_numbers=model.numbers,
        create_time=timestamp(model.create_time),
        etag=etag(model.revision),
        version_policy=_policy_message(model.version_policy),
    )


def version_message(version: ModelVersion, standing: list[tuple[str, VersionReport]] | None = None) -> pb.ModelVersion:
    """A version, and how it stands on workers."""
    return pb.ModelVersion(
        name=version.name,
        version=version.number,
        state=pb.ModelVersion.State.ValueType(version.state),
        runtime=_runtime(version.runtime),
        manifest=_manifest_message(version.manifest),
        signatures=[_signature_message(signature) for signature in version.signatures],
        config=version_config_message(version.config),
        create_time=timestamp(version.create_time),
        etag=etag(version.revision),
        workers=[
            pb.WorkerVersion(worker=names.worker_name(worker), status=_status_message(report))
            for worker, report in standing or ()
        ],
        serving_options=_options_message(version.serving_options),
    )


def endpoint_message(endpoint: Endpoint, check: SplitCheck | None = None) -> pb.Endpoint:
    """An endpoint, what gateways do for the rollout that drives it, and what was found of its split."""
    number = endpoint.next_number
    return pb.Endpoint(
        name=endpoint.name,
        arms=[
            pb.Arm(
                arm=arm.arm,
                version=names.version_name(arm.model, arm.number),
                weight_basis_points=arm.weight_basis_points,
            )
            for arm in endpoint.arms
        ],
        salt=endpoint.salt,
        generation=endpoint.generation,
        automatic=endpoint.automatic,
        next_version=names.version_name(endpoint.endpoint, number) if number else "",
        etag=etag(endpoint.revision),
        create_time=timestamp(endpoint.create_time),
        stream_policy=pb.StreamPolicy.ValueType(endpoint.stream_policy),
        match_rules=map(match_rule_message, match_rules(endpoint)),
        rollout=None if endpoint.rollout is None else directive_message(endpoint.rollout),
        split=None if check is None else split_message(check),
    )


def worker_message(worker: Worker) -> pb.Worker:
    """A worker with its lease."""
    return pb.Worker(
        name=names.worker_name(worker.worker),
        boot_id=worker.boot_id,
        address=worker.address,
        labels=worker.labels,
        versions=[_status_message(report) for report in worker.versions],
        draining=worker.draining,
        lease_expire_time=timestamp(worker.expire_time),
        create_time=timestamp(worker.create_time),
    )


def snapshot_message(snapshot: RoutingSnapshot) -> watch_service_pb2.RoutingSnapshot:
    """A snapshot with its digest."""
    message = watch_service_pb2.RoutingSnapshot(
        epoch=snapshot.epoch,
        revision=snapshot.revision,
        membership_revision=snapshot.membership_revision,
        endpoints=[endpoint_message(endpoint) for endpoint in snapshot.endpoints],
        versions=[
            watch_service_pb2.RoutedVersion(
                model_version=version_message(version), wanted=(version.model, version.number) in snapshot.wanted
            )
            for version in snapshot.versions
        ],
        aliases=[
            watch_service_pb2.RoutedAlias(
                model=names.model_name(model), alias=label.alias, version=names.version_name(model, label.number)
            )
            for model, labels in snapshot.aliases.items()
            for label in labels
        ],
        workers=[
            watch_service_pb2.RoutedWorker(
                name=names.worker_name(worker.worker), address=worker.address, labels=worker.labels
            )
            for worker in snapshot.workers
        ],
    )
    message.digest = digest_of(message)
    return message


def event_message(event: Event) -> watch_service_pb2.Event:
    """An event."""
    return watch_service_pb2.Event(
        sequence=event.sequence,
        event_time=timestamp(event.event_time),
        resource=event.resource,
        action=watch_service_pb2.Event.Action.ValueType(event.action),
        revision=event.revision,
        principal=event.principal,
        details=event.details,
    )


def _manifest_message(manifest: Manifest) -> pb.Manifest:
    artifacts = [pb.Artifact(path=a.path, size_bytes=a.size_bytes, sha256=a.sha256) for a in manifest.artifacts]
    return pb.Manifest(artifacts=artifacts, digest=manifest.digest)


def _signature_message(signature: Signature) -> tensor_pb2.Signature:
    return tensor_pb2.Signature(
        name=signature.name,
        inputs=[_spec_message(spec) for spec in signature.inputs],
        outputs=[_spec_message(spec) for spec in signature.outputs],
    )


def _spec_message(spec: TensorSpec) -> tensor_pb2.TensorSpec:
    return tensor_pb2.TensorSpec(
        name=spec.name,
        datatype=tensor_pb2.DataType.ValueType(spec.datatype),
        shape=spec.shape or (),
        unknown_rank=spec.shape is None,
        forbid_nan=spec.forbid_nan,
    )


def _status_message(report: VersionReport) -> worker_service_pb2.VersionStatus:
    return worker_service_pb2.VersionStatus.FromString(report.status)


def _options_message(options: ServingOptions) -> pb.ServingOptions | None:
    """None where nothing is set, so that the field is absent."""
    if options == ServingOptions():
        return None
    message = pb.ServingOptions(
        max_batch_rows=options.max_batch_rows, buckets=options.buckets, instances=options.instances
    )
    if options.max_queue_delay_us is not None:
        message.max_queue_delay.FromMicroseconds(options.max_queue_delay_us)
    return message


def _policy_message(policy: VersionPolicy) -> pb.VersionPolicy | None:
    """None where there is none, so that the field is absent."""
    if policy.every:
        return pb.VersionPolicy(all=pb.AllVersions())
    if policy.latest:
        return pb.VersionPolicy(latest=policy.latest)
    if policy.specific:
        return pb.VersionPolicy(specific=pb.SpecificVersions(versions=policy.specific))
    return None


def _runtime(runtime: Runtime) -> pb.Runtime.ValueType:
    return pb.Runtime.ValueType(runtime)

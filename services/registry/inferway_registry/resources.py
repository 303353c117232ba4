"""The nouns of the catalogue, as immutable values. What each field means is said in `resources.proto`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from inferway import names
from inferway.datatypes import Datatype
from inferway_registry.rollouts.rollout import Rollout
from inferway_registry.rollouts.spec import HeaderMatch

FULL_WEIGHT = 10_000
"""What the weights of an endpoint's arms add up to, in basis points."""


class Runtime(IntEnum):
    """What executes a version; values equal those of the protocol."""

    TENSORFLOW = 1
    ONNX = 2
    LITERT = 3


class VersionState(IntEnum):
    """What is wanted of a version: PUBLISHED ⇄ UNLOADED; values equal those of the protocol."""

    PUBLISHED = 1
    UNLOADED = 2


class Isolation(IntEnum):
    """Where a version's model runs; values equal those of the protocol."""

    UNSPECIFIED = 0
    PROCESS = 1
    GROUP = 2
    INLINE = 3


class StreamPolicy(IntEnum):
    """What open streams do when the arms change; values equal those of the protocol."""

    UNSPECIFIED = 0
    FINISH = 1
    MIGRATE = 2


class Action(IntEnum):
    """What happened to a resource; values equal those of the protocol."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a version."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a version, ordered by path, and the digest over them."""

    artifacts: tuple[Artifact, ...]
    digest: str

    def artifact(self, path: str) -> Artifact | None:
        """The file at `path`, if there is one."""
        return next((artifact for artifact in self.artifacts if artifact.path == path), None)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a signature expects of one tensor; `shape` is None when not even the rank is known."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...] | None
    forbid_nan: bool = False


@dataclass(frozen=True, slots=True)
class Signature:
    """One callable of a model; inputs and outputs ordered by name."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def batchable(self) -> bool:
        """Every input and output has a leading dimension of any size."""
        return all(spec.shape and spec.shape[0] < 0 for spec in (*self.inputs, *self.outputs))


@dataclass(frozen=True, slots=True)
class StateBinding:
    """An output that becomes an input of the session's next item."""

    signature: str
    """Before it is published it may be empty, and `shape` too."""
    input: str
    output: str
    shape: tuple[int, ...] = ()
    initial: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class VersionConfig:
    """Choices of the publisher; `idempotent` None stands for the default, true."""

    forbid_nan_inputs: tuple[str, ...] = ()
    idempotent: bool | None = None
    max_batch_rows: int = 0
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    isolation: Isolation = Isolation.UNSPECIFIED
    memory_bytes: int = 0
    state: tuple[StateBinding, ...] = ()


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Bounds that an operator set for a version; whatever is left at its default is the worker's own choice."""

    max_batch_rows: int = 0
    max_queue_delay_us: int | None = None
    """0 is a bound, too: no batch is held open on purpose."""
    buckets: tuple[int, ...] = ()
    instances: int = 0


@dataclass(frozen=True, slots=True)
class VersionPolicy:
    """Which versions are kept loaded beside those that are named; at most one field is set."""

    latest: int = 0
    """The newest published versions, so many."""
    every: bool = False
    """Every published version."""
    specific: tuple[int, ...] = ()
    """These versions."""


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """An immutable, published version; only `state` and `serving_options` ever change, and `revision` with them."""

    model: str
    number: int
    state: VersionState
    runtime: Runtime
    manifest: Manifest
    signatures: tuple[Signature, ...]
    config: VersionConfig
    create_time: datetime
    revision: int
    serving_options: ServingOptions = ServingOptions()

    @property
    def name(self) -> str:
        """`models/{model}/versions/{version}`."""
        return names.version_name(self.model, self.number)


@dataclass(frozen=True, slots=True)
class Alias:
    """A movable label on a version."""

    alias: str
    number: int


@dataclass(frozen=True, slots=True)
class Model:
    """A name, its aliases ordered by name, and its version numbers ascending."""

    model: str
    aliases: tuple[Alias, ...]
    numbers: tuple[int, ...]
    create_time: datetime
    revision: int
    version_policy: VersionPolicy = VersionPolicy()

    @property
    def name(self) -> str:
        """`models/{model}`."""
        return names.model_name(self.model)


@dataclass(frozen=True, slots=True)
class Arm:
    """A version taking part in an endpoint's traffic."""

    arm: str
    model: str
    number: int
    weight_basis_points: int


@dataclass(frozen=True, slots=True)
class MatchRule:
    """Sends calls with a certain header to an arm, whatever the weights."""

    match: HeaderMatch
    arm: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Maps traffic to versions. `next_number` belongs to the model of the endpoint's name; 0 means none."""

    endpoint: str
    arms: tuple[Arm, ...]
    salt: str
    generation: int
    automatic: bool
    next_number: int
    create_time: datetime
    revision: int
    stream_policy: StreamPolicy = StreamPolicy.UNSPECIFIED
    match_rules: tuple[MatchRule, ...] = ()
    """Those that an operator set; the first that matches decides."""
    rollout: Rollout | None = None
    """The active one, which alone sets arms and salt; it is stored by itself."""

    @property
    def name(self) -> str:
        """`endpoints/{endpoint}`."""
        return names.endpoint_name(self.endpoint)


@dataclass(frozen=True, slots=True)
class Upload:
    """A version to be: its files are on their way."""

    upload: str
    model: str
    runtime: Runtime
    manifest: Manifest
    config: VersionConfig
    expire_time: datetime

    @property
    def name(self) -> str:
        """`uploads/{upload}`."""
        return names.upload_name(self.upload)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a resource of the catalogue."""

    sequence: int
    event_time: datetime
    resource: str
    action: Action
    revision: int
    principal: str
    details: Mapping[str, str]


def etag(revision: int) -> str:
    """The etag of a resource that last changed at `revision`."""
    return f"r{revision:x}"

"""A version as the catalogue describes it and as the worker holds it."""

from __future__ import annotations

from dataclasses import dataclass, field

from inferway.errors import InferwayError
from inferway_inference.latency import Speed
from inferway_inference.plan import ServingBounds, ServingPlan
from inferway_inference.signatures import Signature
from inferway_inference.states import LoadState


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a version."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of a version; `digest` is over their paths and digests."""

    digest: str
    artifacts: tuple[Artifact, ...]


@dataclass(frozen=True, slots=True)
class VersionSpec:
    """What the catalogue says of a version."""

    name: str
    """`models/{model}/versions/{version}`."""
    runtime: str
    """Name of the runtime in lower case, for example `tensorflow`."""
    manifest: Manifest
    signatures: tuple[Signature, ...]
    max_batch_rows: int
    """0 lets the worker choose."""
    isolation: str = "process"
    """`process`, `group` or `inline`."""
    memory_bytes: int = 0
    """That one copy needs, as its publisher says; 0 lets the worker measure it."""
    bounds: ServingBounds = field(default_factory=ServingBounds)
    """What the operator set; changes while the version serves."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What a routing snapshot wants of workers."""

    wanted: dict[str, VersionSpec]
    """To be loaded, by name."""
    known_digests: frozenset[str]
    """Of every version in the catalogue, wanted or not: the files that are worth keeping."""
    published: dict[str, str] = field(default_factory=dict)
    """Digest of every version that nobody has unloaded, by name: those that streams may go on with."""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """How a version stands in this worker."""

    version: str
    state: LoadState
    error: InferwayError | None
    memory_bytes: int
    speed: Speed
    failed_attempts: int
    plan: ServingPlan | None = None
    """None before it is ready."""

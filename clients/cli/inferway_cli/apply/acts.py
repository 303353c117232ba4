"""The acts that a plan consists of: what each would change, as values that know nothing of how it is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from inferway.registry.v1 import resources_pb2, rollouts_pb2
from inferway_cli.apply.contents import Content
from inferway_cli.tuning import Options

NEW = "new"
"""What is shown in place of a number that the registry has yet to give."""


@dataclass(frozen=True, slots=True)
class Ref:
    """A version; one that this apply publishes has no number yet."""

    model: str
    number: int | None

    def __str__(self) -> str:
        """As versions are written elsewhere: `digits/3`; `digits/new`."""
        return f"{self.model}/{self.number or NEW}"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that would be otherwise; empty `before` is something new, empty `after` something gone."""

    field: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Publish:
    """Publishes a model's content as its next version."""

    model: str
    content: Content
    differences: tuple[Difference, ...]

    @property
    def resource(self) -> str:
        """What is changed."""
        return f"model {self.model}"


@dataclass(frozen=True, slots=True)
class Tune:
    """Replaces the bounds of a version."""

    version: Ref
    options: Options
    differences: tuple[Difference, ...]

    @property
    def resource(self) -> str:
        """What is changed."""
        return f"model {self.version.model}"


@dataclass(frozen=True, slots=True)
class Keep:
    """Replaces a model's version policy."""

    model: str
    policy: resources_pb2.VersionPolicy
    differences: tuple[Difference, ...]

    @property
    def resource(self) -> str:
        """What is changed."""
        return f"model {self.model}"


@dataclass(frozen=True, slots=True)
class PutAlias:
    """Puts an alias on a version."""

    alias: str
    version: Ref
    differences: tuple[Difference, ...]

    @property
    def resource(self) -> str:
        """What is changed."""
        return f"model {self.version.model}"


@dataclass(frozen=True, slots=True)
class DropAlias:
    """Takes an alias away."""

    model: str
    alias: str
    differences: tuple[Difference, ...]

    @property
    def resource(self) -> str:
        """What is changed."""
        return f"model {self.model}"


@dataclass(frozen=True, slots=True)
class Share:
    """An arm to be."""

    arm: str
    """Empty stands for `v` and the version's number."""
    version: Ref
    weight_basis_points: int


@dataclass(frozen=True, slots=True)
class Route:
    """Makes or changes an endpoint."""

    endpoint: str
    seen: resources_pb2.Endpoint | None
    """As it was when the plan was made; None if it was not there."""
    comes_with_model: bool
    """Whether publishing, which comes before, makes it."""
    shares: tuple[Share, ...]
    """Empty: as they are."""
    automatic: bool
    salt: str
    streams: resources_pb2.StreamPolicy.ValueType
    rules: tuple[resources_pb2.MatchRule, ...] | None
    """None: as they are."""
    differences: tuple[Difference, ...]

    @property
    def resource(self) -> str:
        """What is changed."""
        return f"endpoint {self.endpoint}"


@dataclass(frozen=True, slots=True)
class Begin:
    """Begins a rollout."""

    endpoint: str
    version: Ref
    spec: rollouts_pb2.RolloutSpec
    """All but the candidate, which is `version`."""
    supersede: bool
    differences: tuple[Difference, ...]

    @property
    def resource(self) -> str:
        """What is changed."""
        return f"rollout of {self.endpoint}"


Act: TypeAlias = Publish | Tune | Keep | PutAlias | DropAlias | Route | Begin


@dataclass(frozen=True, slots=True)
class Plan:
    """What an apply would do, in the order in which it would."""

    resources: tuple[str, ...]
    """Everything that is described, changed or not."""
    created: frozenset[str]
    """Those that are not there yet."""
    acts: tuple[Act, ...]
    named: tuple[Ref, ...] = ()
    """The versions that aliases and arms of the documents name."""
    contents: tuple[Ref, ...] = ()
    """The versions that paths of the documents hold."""

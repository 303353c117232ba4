"""What a rollout is judged by: its metrics, their margins, and how they share the chance of a false alarm."""

from __future__ import annotations

from dataclasses import dataclass

from inferway.errors import InvalidField

MIN_UNITS = 300
ALPHA = 0.05
SPLIT_ALPHA = 0.001


@dataclass(frozen=True, slots=True)
class Rate:
    """Events that shall not be more frequent on the canary: errors, slow answers, answers that break the schema."""

    name: str
    """The events in plain words: "errors"."""
    kinds: tuple[str, ...]
    """Whose counts add up; a unit's first event among them counts."""
    alpha: float
    """The chance of ever finding harm where there is none."""
    margin: float = 1.0
    """Harm is more than so many times the stable arm's frequency. At 1 the canary may not be worse at all."""
    not_inferior: float | None = None
    """If set, the canary is safe once it is proven to have less than so many times the stable arm's."""
    without: tuple[str, ...] = ()
    """Kinds of events after which a unit cannot have this one: one that got an error got no answer, slow or not. They
    are taken out of both arms, or a stable arm that fails would make a sound canary look slow."""
    most_stable_share: float | None = None
    """If more of the stable arm's units than this have the event, nothing can be said. None: there is no limit."""

    def __post_init__(self) -> None:
        """Raises InvalidField if a number means nothing."""
        _check_metric(self.name, self.alpha, self.margin)
        if self.not_inferior is not None and self.not_inferior <= self.margin:
            raise InvalidField.at(f"{self.name}.not_inferior", f"{self.not_inferior}; expected more than the margin")


@dataclass(frozen=True, slots=True)
class Drift:
    """An output that shall be distributed alike on both arms, by the bins of `Counts.bins`."""

    name: str
    """The output in plain words."""
    alpha: float
    margin: float = 1.25
    """No bin shall be more than so many times as frequent on one arm as on the other. Better models differ a little."""
    output: str = ""
    """The key of its bins; empty if that is the name."""

    def __post_init__(self) -> None:
        """Raises InvalidField if a number means nothing."""
        _check_metric(self.name, self.alpha, self.margin)


Metric = Rate | Drift


def _check_metric(name: str, alpha: float, margin: float) -> None:
    if not 0 < alpha < 1:
        raise InvalidField.at(f"{name}.alpha", f"{alpha}; expected more than 0 and less than 1")
    if margin < 1:
        raise InvalidField.at(f"{name}.margin", f"{margin}; expected at least 1")


@dataclass(frozen=True, slots=True)
class Plan:
    """How a rollout is judged.

    The alphas of the metrics add up to at most `alpha`, so that all of them together raise a false alarm in at most
    that share of rollouts (Bonferroni), each over its whole length. `split_alpha` stands beside it: a mismatch only
    pauses.
    """

    metrics: tuple[Metric, ...]
    alpha: float = ALPHA
    split_alpha: float = SPLIT_ALPHA
    min_units: int = MIN_UNITS
    """The canary meets at least so many under each setting of the weights before anything good is said of it."""

    def __post_init__(self) -> None:
        """Raises InvalidField unless names differ and the alphas add up to at most alpha."""
        total = sum(metric.alpha for metric in self.metrics)
        if total > self.alpha * (1 + 1e-9):
            raise InvalidField.at("metrics", f"their alphas add up to {total:g}; expected at most {self.alpha:g}")
        if len({metric.name for metric in self.metrics}) != len(self.metrics):
            raise InvalidField.at("metrics", "two metrics have the same name")

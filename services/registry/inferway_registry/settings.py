"""What can be set from outside, with its meaning and default."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from inferway_chassis.settings import ServiceSettings

GIB = 1024**3

Positive = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0)]


class RegistrySettings(ServiceSettings):
    """The registry's settings."""

    model_config = SettingsConfigDict(env_prefix="INFERWAY_REGISTRY_")

    grpc_address: str = "127.0.0.1:8010"
    """`host:port` of the gRPC server; port 0 takes any free one."""
    metrics_address: str = "127.0.0.1:8011"
    """`host:port` of the Prometheus metrics; empty turns them off."""
    database_url: SecretStr = SecretStr("")
    """For example postgresql+asyncpg://user:password@host/database; empty is SQLite in `data_dir`."""
    blob_url: str = ""
    """Where artifacts are kept, for example s3://bucket/prefix; empty is `blobs` in `data_dir`."""
    max_upload_bytes: Positive = 40 * GIB
    """Largest version, all files together."""
    max_file_bytes: Positive = 20 * GIB
    """Largest file."""
    max_files: Positive = 10_000
    """Most files of one version."""
    max_uploads: Positive = 64
    """Most uploads in progress."""
    upload_lifetime_seconds: PositiveSeconds = 24 * 3600
    """How long an upload without a sign of life is kept."""
    upload_idle_seconds: PositiveSeconds = 600
    """How long an upload must be untouched to make room for a new one when there are `max_uploads`."""
    upload_patience_seconds: PositiveSeconds = 30
    """How long one call of an upload may send nothing."""
    orphan_lifetime_seconds: PositiveSeconds = 24 * 3600
    """How old content must be to be deleted when no version and no upload uses it."""
    max_watchers: Positive = 1_000
    """Most streams of both feeds together."""

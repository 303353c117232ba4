"""Settings at the edge of a process: environment over TOML file over defaults; unknown names refuse to start.

Inside a process nobody sees these objects: each component takes small values or its own frozen options.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from inferway_chassis.addresses import SettingsRefused, split_address

MIB = 1024 * 1024

Seconds = Annotated[float, Field(ge=0)]


class ServiceSettings(BaseSettings):
    """What all services share. A service's own class adds its fields, its prefix and its default addresses."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    grpc_address: str = "127.0.0.1:0"
    """`host:port` of the gRPC server; port 0 takes any free one."""
    metrics_address: str = ""
    """`host:port` of the Prometheus metrics; empty turns them off."""
    insecure: bool = False
    """Permit plaintext on an address that is not loopback. Anybody who reaches the port can use the service."""
    data_dir: Path = Path("inferway-data")
    """Where the process keeps what must outlast it."""
    otlp_endpoint: str = ""
    """`host:port` of an OpenTelemetry collector (gRPC, plaintext); empty sends nothing."""
    sampling_ratio: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the requests without a trace context of their own that are traced."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least severe log line that is written."""
    log_format: Literal["json", "text"] = "json"
    """JSON for machines, text for a terminal."""
    max_message_bytes: Annotated[int, Field(gt=0)] = 64 * MIB
    """Largest gRPC message; larger ones are refused with gRPC's RESOURCE_EXHAUSTED."""
    slow_reader_seconds: Annotated[float, Field(gt=0)] = 30.0
    """A stream whose client does not read, so that a message waits to be sent for so long, is ended."""
    drain_seconds: Seconds = 2.0
    """After SIGTERM: how long the process still takes new requests while it tells everybody that it is leaving."""
    grace_seconds: Seconds = 10.0
    """After that: how long requests in progress may take before they are cut."""

    prefix: ClassVar[str] = "INFERWAY_"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Publishes the environment prefix of the class."""
        super().__init_subclass__(**kwargs)
        cls.prefix = str(cls.model_config.get("env_prefix", "INFERWAY_"))

    @field_validator("grpc_address", "metrics_address")
    @classmethod
    def _address_has_port(cls, address: str) -> str:
        if address and split_address(address) is None:
            message = f"{address!r} is not of the form host:port"
            raise ValueError(message)
        return address

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments, then environment, then the TOML file named by `<PREFIX>CONFIG_FILE`."""
        del dotenv_settings, file_secret_settings
        path = os.environ.get(f"{cls.prefix}CONFIG_FILE")
        if path is None:
            return (init_settings, env_settings)
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path)))

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Reads the settings of this process; raises SettingsRefused."""
        known = {f"{cls.prefix}{field}".upper() for field in cls.model_fields} | {f"{cls.prefix}CONFIG_FILE"}
        unknown = sorted(name for name in environment if name.startswith(cls.prefix) and name not in known)
        if unknown:
            message = "\n".join(f"unknown setting {name}; --print-config lists the known ones" for name in unknown)
            raise SettingsRefused(message)
        file = environment.get(f"{cls.prefix}CONFIG_FILE")
        if file is not None and not Path(file).is_file():
            message = f"{cls.prefix}CONFIG_FILE: there is no file {file}"
            raise SettingsRefused(message)
        try:
            return cls()
        except ValidationError as error:
            lines = [f"{cls.prefix}{'.'.join(map(str, e['loc']))}".upper() + f": {e['msg']}" for e in error.errors()]
            raise SettingsRefused("\n".join(lines)) from error
        except (OSError, ValueError) as error:
            message = f"{cls.prefix}CONFIG_FILE: {error}"
            raise SettingsRefused(message) from error

    def described(self) -> str:
        """The effective settings as text: one `NAME=value` line each, under what it means."""
        lines = []
        values = json.loads(self.model_dump_json())
        for field, info in type(self).model_fields.items():
            lines += [f"# {line}" for line in (info.description or "").splitlines()]
            lines.append(f"{self.prefix}{field.upper()}={_as_text(values[field])}\n")
        return "\n".join(lines)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)

"""How the registry starts, or says why it does not."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from inferway_chassis.addresses import SettingsRefused
from inferway_registry.settings import RegistrySettings
from tests.integration.registry.conftest import Start


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"database_url": "nonsense"}, "INFERWAY_REGISTRY_DATABASE_URL"),
        ({"database_url": "mysql+aiomysql://host/database"}, "INFERWAY_REGISTRY_DATABASE_URL"),
        ({"blob_url": "ftp://host"}, "INFERWAY_REGISTRY_BLOB_URL"),
        ({"data_dir": "/proc/nowhere"}, "data_dir"),
    ],
)
async def test_a_setting_that_cannot_be_used_is_named(start: Start, settings: dict[str, str], name: str):
    """The operator reads one line instead of a stack."""
    with pytest.raises(SettingsRefused, match=name):
        async with start(**settings):
            pass


def test_the_databases_password_is_not_shown():
    """`--print-config` ends up in tickets."""
    settings = RegistrySettings(database_url=SecretStr("postgresql+asyncpg://user:hunter2@host/database"))

    assert "hunter2" not in settings.described()
    assert "hunter2" not in repr(settings)

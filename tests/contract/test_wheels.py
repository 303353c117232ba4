"""The wheels, built as a release builds them: what is in them, and that they work without this checkout."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {"inferway": ".", "inferway_client": "clients/python", "inferway_protos": "protos"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Builds all three, by name; needs no network."""
    output = tmp_path_factory.mktemp("wheels")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(output)]
    subprocess.run([*build, *(str(ROOT / folder) for folder in FOLDERS.values())], check=True)
    return {path.name.partition("-")[0]: path for path in output.glob("*.whl")}


def contents(wheel: Path) -> set[str]:
    return set(zipfile.ZipFile(wheel).namelist())


def test_each_distribution_gives_one_wheel(wheels: dict[str, Path]):
    """One for each, named as pyproject says."""
    assert wheels.keys() == FOLDERS.keys()


def test_the_contract_ships_protos_stubs_and_descriptors(wheels: dict[str, Path]):
    """Users of other languages compile the protos; mypy reads the stubs; reflection reads the descriptors."""
    prediction = "inferway/prediction/v1/prediction_service"
    needed = {f"{prediction}.proto", f"{prediction}_pb2.py", f"{prediction}_pb2.pyi", f"{prediction}_pb2_grpc.pyi"}
    foreign = {
        f"inferway/foreign/protos/{name}" for name in ("inference/grpc_service.proto", "tensorflow/saved_model.proto")
    }

    assert needed | foreign | {"inferway/py.typed", "inferway/descriptors.binpb"} <= contents(wheels["inferway_protos"])


def test_no_wheel_puts_a_foreign_name_at_the_top(wheels: dict[str, Path]):
    """A folder `tensorflow` or `inference` of ours in site-packages would shadow or be shadowed."""
    tops = {name.partition("/")[0] for wheel in wheels.values() for name in contents(wheel) if ".dist-info" not in name}

    assert all(top.startswith("inferway") for top in tops), tops


def test_the_services_ship_their_migrations_and_type_markers(wheels: dict[str, Path]):
    """A registry without its migrations starts only in a checkout."""
    names = contents(wheels["inferway"])

    assert {"inferway_chassis/py.typed", "inferway_gateway/__main__.py", "inferway_registry/__main__.py"} <= names
    assert [name for name in names if name.startswith("inferway_registry/") and "migrations" in name]


def test_client_and_contract_work_from_their_wheels_alone(wheels: dict[str, Path], tmp_path: Path):
    """What is tested in a checkout may still be missing from the wheel."""
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path)]
    subprocess.run([*install, wheels["inferway_client"], wheels["inferway_protos"]], check=True)
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import inferway, inferway_client; "
        f"sys.exit(not (inferway.__path__[0].startswith({str(tmp_path)!r}) "
        f"and inferway_client.__file__.startswith({str(tmp_path)!r})))"
    )

    subprocess.run([sys.executable, "-c", program], check=True)

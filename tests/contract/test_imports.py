"""What a service or a client may import, tried by importing it."""

import subprocess
import sys

import pytest

IMPORT_ALL = """
import importlib, pkgutil, sys

class WithoutSome:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent!r} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(WithoutSome, sys.meta_path)
for package in {packages!r}:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.endswith(".__main__") and ".migrations." not in module.name:
            importlib.import_module(module.name)
"""


def import_all(packages: list[str], absent: set[str]) -> None:
    """Imports every module of the packages in a process where the `absent` ones cannot be found."""
    program = IMPORT_ALL.format(packages=packages, absent=absent)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr


def loaded_by(module: str) -> set[str]:
    """The modules that are in a fresh process after importing one."""
    program = f"import sys, {module}; print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize(("service", "more"), [("inferway_gateway", set()), ("inferway_registry", {"numpy"})])
def test_gateway_and_registry_import_without_tensorflow(service: str, more: set[str]):
    """Their images do not have it."""
    import_all(["inferway", "inferway_chassis", service], {"keras", "sklearn", "tensorflow"} | more)


def test_the_front_of_a_worker_imports_without_tensorflow():
    """It lives in the runners alone: a crash or a stall of TensorFlow must not take the front with it."""
    assert not loaded_by("inferway_inference.app") & {"keras", "tensorflow"}


def test_the_client_imports_with_its_own_dependencies_alone():
    """A user's environment has grpcio, protobuf and numpy, and nothing else of ours."""
    services = {"inferway_chassis", "inferway_cli", "inferway_gateway", "inferway_inference", "inferway_registry"}
    import_all(["inferway", "inferway_client"], services | {"opentelemetry", "pydantic", "starlette", "tensorflow"})


def test_the_command_answers_without_loading_tensorflow():
    """`inferway models` has to feel instant; TensorFlow takes seconds to import."""
    assert not loaded_by("inferway_cli.app") & {"keras", "scipy", "sklearn", "tensorflow"}

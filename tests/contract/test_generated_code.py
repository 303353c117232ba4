"""Generated code is what the protos say, and the public descriptors are the public ones."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import inferway

ROOT = Path(__file__).resolve().parents[2]
GENERATOR = ROOT / "build/gen/bin/python"


@pytest.mark.skipif(not GENERATOR.exists(), reason="`make check` installs the generator")
def test_generated_code_is_what_the_protos_say():
    """A proto changed without its stubs is a contract that nobody serves."""
    result = subprocess.run(
        [GENERATOR, ROOT / "tools/gen_protos.py", "--check"], capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr


def test_public_descriptors_show_foreign_protos_under_their_public_names():
    """Reflection answers from them, and grpcurl asks for `inference.GRPCInferenceService`."""
    descriptors = FileDescriptorSet.FromString((Path(inferway.__path__[0]) / "descriptors.binpb").read_bytes())
    services = {f"{file.package}.{service.name}" for file in descriptors.file for service in file.service}

    assert {
        "inference.GRPCInferenceService",
        "inferway.prediction.v1.PredictionService",
        "inferway.registry.v1.RegistryService",
        "inferway.worker.v1.WorkerService",
    } <= services
    assert not [file.package for file in descriptors.file if "foreign" in file.package]


def test_public_descriptors_are_complete():
    """Reflection must be able to resolve every import, or grpcurl refuses the whole service."""
    descriptors = FileDescriptorSet.FromString((Path(inferway.__path__[0]) / "descriptors.binpb").read_bytes())
    names = {file.name for file in descriptors.file}

    assert not {needed for file in descriptors.file for needed in file.dependency} - names


def test_tritonclient_and_the_contract_live_in_one_process():
    """Users load both; two generated modules of one public package would collide in protobuf's pool."""
    program = "import tritonclient.grpc; from inferway.foreign.inference import grpc_service_pb2"

    subprocess.run([sys.executable, "-c", program], check=True)

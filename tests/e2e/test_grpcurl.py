"""`grpcurl`, which knows nothing of us but what reflection says."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.testbed.processes import ServiceProcess
from tests.testbed.stack import Stack


def grpcurl(*arguments: str) -> str:
    binary = Path(sys.executable).parent / "grpcurl"
    command = [str(binary) if binary.exists() else shutil.which("grpcurl") or "grpcurl", "-plaintext", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


SERVICES = {
    "gateway": {"inference.GRPCInferenceService", "inferway.prediction.v1.PredictionService"},
    "registry": {"inferway.registry.v1.RegistryService", "inferway.registry.v1.WatchService"},
    "inference": {"inferway.worker.v1.WorkerService"},
}


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_lists_and_describes_itself(stack: Stack, service: str) -> None:
    """Reflection and health on all three, under the public names."""
    target = {"gateway": stack.gateway, "registry": stack.registry, "inference": stack.workers[0]}[service].target
    listed = set(grpcurl(target, "list").split())

    assert SERVICES[service] | {"grpc.health.v1.Health"} <= listed
    for name in SERVICES[service]:
        assert "rpc " in grpcurl(target, "describe", name)


def predict(gateway: ServiceProcess, body: dict[str, Any]) -> dict[str, Any]:
    answer = grpcurl("-d", json.dumps(body), gateway.target, "inferway.prediction.v1.PredictionService/Predict")
    result: dict[str, Any] = json.loads(answer)
    return result


def test_a_prediction_can_be_typed_by_hand(gateway: ServiceProcess) -> None:
    """JSON in, JSON out, typed contents."""
    tensor = {"name": "x", "datatype": "DATA_TYPE_FP32", "shape": [1, 32], "floats": {"values": [0.5] * 32}}
    answer = predict(gateway, {"target": {"endpoint": "tiny"}, "inputs": [tensor]})

    assert answer["modelVersion"] == "models/tiny/versions/1"
    assert answer["outputs"][0]["shape"] == ["1", "1"]


def test_the_open_inference_protocol_works_by_hand_too(gateway: ServiceProcess) -> None:
    """What KServe's users type."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 32], "contents": {"fp32_contents": [0.5] * 32}}
    body = json.dumps({"model_name": "tiny", "inputs": [tensor]})
    answer = json.loads(grpcurl("-d", body, gateway.target, "inference.GRPCInferenceService/ModelInfer"))

    assert answer["modelName"] == "tiny"


def test_the_health_of_a_model_can_be_asked(gateway: ServiceProcess) -> None:
    """The standard health protocol, per model."""
    body = json.dumps({"service": "model/tiny"})

    assert "SERVING" in grpcurl("-d", body, gateway.target, "grpc.health.v1.Health/Check")

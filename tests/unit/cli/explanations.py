"""A worker's explanations of three models, as such models are: an image model, a wide perceptron, and a new one."""

from __future__ import annotations

from inferway.registry.v1 import resources_pb2
from inferway.type.v1 import tensor_pb2
from inferway.worker.v1 import worker_service_pb2 as pb

NOW_US = 1_800_000_000_000_000
MOBILENET = "models/mobilenet/versions/3"


def version(name: str = MOBILENET) -> resources_pb2.ModelVersion:
    """As the registry knows it."""
    return resources_pb2.ModelVersion(name=name, version=int(name.rpartition("/")[2]))


def worker(name: str, address: str, *versions: str) -> resources_pb2.Worker:
    """A worker that has these versions ready."""
    statuses = [pb.VersionStatus(version=version, state=pb.LOAD_STATE_READY) for version in versions]
    return resources_pb2.Worker(name=f"workers/{name}", address=address, versions=statuses)


def trial(callers: int, threads: int, rows: int, rows_per_second: float) -> pb.PlanTrial:
    """One way that was tried."""
    return pb.PlanTrial(
        callers=callers, threads=threads, rows=rows, rows_per_second=rows_per_second, call_path="session callable"
    )


def curve(*points: tuple[int, float, int], shape: str = "image[224,224,3]") -> pb.LatencyCurve:
    """Of rows, microseconds and samples."""
    learned = [pb.LatencyPoint(rows=rows, compute_us=us, samples=samples) for rows, us, samples in points]
    return pb.LatencyCurve(signature="serving_default", shape=shape, points=learned)


def image_model() -> pb.ExplainVersionResponse:
    """Two callers of one row are the fastest; something waits, and two batches were started."""
    explained = pb.ExplainVersionResponse()
    status = explained.status
    status.version, status.state, status.memory_bytes = MOBILENET, pb.LOAD_STATE_READY, 432_000_000
    plan = status.plan
    plan.isolation, plan.instances, plan.callers, plan.threads, plan.max_batch_rows = "process", 1, 2, 1, 32
    plan.trials.extend([trial(2, 1, 1, 140.2), trial(1, 0, 1, 96), trial(2, 1, 8, 121), trial(1, 0, 32, 78)])
    points = ((1, 7_100, 12_000), (2, 14_300, 310), (4, 30_100, 44), (8, 66_000, 12), (32, 410_000, 1))
    explained.curves.append(curve(*points))
    explained.queue.requests, explained.queue.rows = 2, 3
    explained.queue.bytes, explained.queue.oldest_us = 1_806_336, 4_100
    explained.credits.add(gateway="gateway/7f3a", open_rows=3, share_rows=4)
    explained.decisions.add(
        dispatch_time_us=NOW_US - 2_100_000,
        requests=1,
        rows=1,
        reason=tensor_pb2.DISPATCH_REASON_IDLE,
        waited_us=40,
        expected_us=7_100,
        compute_us=7_200,
        explanation="idle: the model was free, and waiting would have cost 0.3 ms more than it saved",
    )
    explained.decisions.add(
        dispatch_time_us=NOW_US - 900, requests=2, rows=2, reason=tensor_pb2.DISPATCH_REASON_FULL, waited_us=60
    )
    return explained


def perceptron() -> pb.ExplainVersionResponse:
    """One caller with large batches is the fastest."""
    explained = pb.ExplainVersionResponse()
    plan = explained.status.plan
    plan.isolation, plan.instances, plan.callers, plan.max_batch_rows = "process", 1, 1, 64
    plan.trials.extend([trial(2, 1, 1, 900), trial(1, 0, 1, 800), trial(1, 0, 8, 4_000), trial(1, 0, 32, 9_000)])
    return explained


def new_model() -> pb.ExplainVersionResponse:
    """It has answered nothing yet."""
    explained = pb.ExplainVersionResponse()
    explained.status.state = pb.LOAD_STATE_WARMING
    return explained

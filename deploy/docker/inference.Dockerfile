# The inference worker, with TensorFlow, ONNX Runtime and LiteRT.
# Build from the root of the repository: docker build -f deploy/docker/inference.Dockerfile -t inferway-inference .
# With CUDA, for machines with NVIDIA's container toolkit: --build-arg LOCK=inference-gpu -t inferway-inference-gpu
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Where packages come from, if not from pip's own default; never kept in the image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_CERT
# Which of requirements/ is installed: inference or inference-gpu.
ARG LOCK=inference
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
RUN python3 -m venv tools && python3 -m venv --without-pip /opt/inferway
# TensorFlow's headers are for compiling operations of one's own, and take 430 MB.
COPY requirements/build.txt requirements/${LOCK}.txt requirements/
RUN tools/bin/pip install --require-hashes -r requirements/build.txt \
 && tools/bin/pip --python /opt/inferway/bin/python install --require-hashes -r requirements/${LOCK}.txt \
 && rm -r /opt/inferway/lib/python3.*/site-packages/tensorflow/include
COPY pyproject.toml README.md LICENSE CHANGELOG.md ./
COPY protos protos
COPY services services
# The command itself is not in these images; its entry point would only fail.
RUN tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir wheels ./protos . \
 && tools/bin/pip --python /opt/inferway/bin/python install --no-deps wheels/*.whl \
 && rm /opt/inferway/bin/inferway

FROM ${PYTHON_IMAGE}
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin inferway \
 && install -d -o inferway -g inferway /data
COPY --from=build /opt/inferway /opt/inferway
ENV PATH=/opt/inferway/bin:$PATH PYTHONUNBUFFERED=1 \
    INFERWAY_INFERENCE_DATA_DIR=/data
USER inferway
WORKDIR /data
VOLUME /data
EXPOSE 8020 8030
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "inferway_chassis.healthcheck", "127.0.0.1:8020"]
ENTRYPOINT ["python", "-m", "inferway_inference"]

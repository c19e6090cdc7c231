# The trainer: torch and what a run needs. Build it from the repository root:
#   docker build -f images/trainer.Dockerfile --build-arg BASE=python:3.11-slim .
# BASE is any Debian-like image with Python 3.11 or newer and its venv module; CUDA comes with torch.
ARG BASE=python:3.11-slim
FROM ${BASE}

# Only for builders behind a proxy that inspects TLS, or with an index of their own: each is unset unless given.
ARG SSL_CERT_FILE
ARG PIP_CERT
ARG UV_NATIVE_TLS
ARG PIP_INDEX_URL
ARG UV_DEFAULT_INDEX
# Where the installer keeps wheels while it builds: a cache mount, or a folder that the builder mounts.
ARG UV_CACHE_DIR=/root/.cache/uv

# With --build-arg TRACKERS=1: Aim and MLflow, too. Weights & Biases is always there.
ARG TRACKERS
# One stage: copying six gigabytes of environment out of a first one would double the disk that a build needs.
COPY locks/uv.txt locks/trainer.txt locks/trackers.txt /tmp/locks/
RUN --mount=type=cache,target=/root/.cache/uv \
    python3 -m venv /tmp/uv \
 && /tmp/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/locks/uv.txt \
 && python3 -m venv --without-pip /opt/crossfold \
 && if [ -n "${TRACKERS}" ]; then lock=trackers; else lock=trainer; fi \
 && UV_LINK_MODE=copy /tmp/uv/bin/uv pip install --python /opt/crossfold --require-hashes --compile-bytecode -r /tmp/locks/${lock}.txt \
 && rm -rf /tmp/uv /tmp/locks

# Code on the path rather than installed: a change of code is a layer of kilobytes, not of gigabytes.
# Caches go to /tmp, the only place that a run can write to.
ENV PATH=/opt/crossfold/bin:${PATH} \
    PYTHONPATH=/opt/crossfold/app \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LOGNAME=crossfold \
    XDG_CACHE_HOME=/tmp/.cache \
    MPLCONFIGDIR=/tmp/matplotlib \
    TORCHINDUCTOR_CACHE_DIR=/tmp/torchinductor \
    TRITON_CACHE_DIR=/tmp/triton

COPY trainer/crossfold_trainer /opt/crossfold/app/crossfold_trainer
# The root file system is read-only where this runs: bytecode is compiled here or never.
RUN python3 -m compileall -q /opt/crossfold/app

ARG VERSION=0.0.0
ARG REVISION=unknown
ENV CROSSFOLD_GIT=${REVISION}
LABEL org.opencontainers.image.title="crossfold-trainer" \
      org.opencontainers.image.description="Tunes and cross-validates segmentation models on Kubernetes: one training run" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/crossfold/crossfold" \
      org.opencontainers.image.licenses="Apache-2.0"

USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "crossfold_trainer"]

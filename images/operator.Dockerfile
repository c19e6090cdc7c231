# The operator: no torch, one Kubernetes client. Build it from the repository root:
#   docker build -f images/operator.Dockerfile --build-arg BASE=python:3.11-slim .
# BASE is any Debian-like image with Python 3.11 or newer and its venv module.
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

COPY locks/uv.txt locks/operator.txt /tmp/locks/
RUN --mount=type=cache,target=/root/.cache/uv \
    python3 -m venv /tmp/uv \
 && /tmp/uv/bin/pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r /tmp/locks/uv.txt \
 && python3 -m venv --without-pip /opt/crossfold \
 && UV_LINK_MODE=copy /tmp/uv/bin/uv pip install --python /opt/crossfold --require-hashes --compile-bytecode -r /tmp/locks/operator.txt \
 && rm -rf /tmp/uv /tmp/locks

# Code on the path rather than installed: a change of code is a layer of kilobytes.
ENV PATH=/opt/crossfold/bin:${PATH} \
    PYTHONPATH=/opt/crossfold/app \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    LOGNAME=crossfold

# Of the trainer only the contract, which needs neither torch nor anything else of it.
COPY operator/crossfold_operator /opt/crossfold/app/crossfold_operator
COPY trainer/crossfold_trainer/__init__.py /opt/crossfold/app/crossfold_trainer/__init__.py
COPY trainer/crossfold_trainer/contract /opt/crossfold/app/crossfold_trainer/contract
# The root file system is read-only where this runs: bytecode is compiled here or never.
RUN python3 -m compileall -q /opt/crossfold/app

ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="crossfold-operator" \
      org.opencontainers.image.description="Tunes and cross-validates segmentation models on Kubernetes: the operator" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="https://github.com/crossfold/crossfold" \
      org.opencontainers.image.licenses="Apache-2.0"

USER 65532:65532
WORKDIR /tmp
ENTRYPOINT ["python", "-m", "crossfold_operator.main"]

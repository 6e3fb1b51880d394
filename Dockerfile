# Two images of one build: `--target gateway` (no torch) and `--target worker` (torch, TorchServe, Java, the shipped classifiers).
# deploy/image.sh builds them with docker, or with buildah where there is no daemon.
#
#   BASE          any Debian 12, whose Python is 3.11
#   TORCH_INDEX   where torch comes from: PyTorch's index of builds without CUDA, or empty for PyPI's, which has CUDA

ARG BASE=docker.io/library/debian:bookworm-slim

# hadolint ignore=DL3006
FROM ${BASE} AS python
# The release's own versions, with its security updates: a pinned one would vanish from the archive with the next update.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 tini \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/log/* /var/cache/* \
    && useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin service
ENV PATH=/opt/venv/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1

FROM python AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv
WORKDIR /source
COPY constraints.txt ./

FROM build AS gateway-build
COPY pyproject.toml README.md LICENSE ./
COPY robust_synthesis robust_synthesis
COPY handlers handlers
COPY deploy/torchserve deploy/torchserve
COPY clients/studio/page clients/studio/page
RUN pip install --no-cache-dir -c constraints.txt '.[gateway,tracing]' \
    && pip uninstall -y --quiet pip setuptools

FROM build AS worker-build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir -c constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY robust_synthesis robust_synthesis
COPY handlers handlers
COPY deploy/torchserve deploy/torchserve
COPY clients/studio/page clients/studio/page
RUN pip install --no-cache-dir -c constraints.txt '.[serve]'
COPY model_store model_store
# Headers, static libraries and test suites serve nobody here.
RUN robust-synthesis archive --out /models \
    && pip uninstall -y --quiet pip setuptools \
    && rm -rf /opt/venv/lib/python3.11/site-packages/torch/include /opt/venv/lib/python3.11/site-packages/torch/test \
    && find /opt/venv -name '*.a' -delete

FROM python AS gateway
COPY --from=gateway-build /opt/venv /opt/venv
USER 10001:10001
EXPOSE 50051 50052 9465
ENV ROBUST_SYNTHESIS_HEALTH_PORT=50052 ROBUST_SYNTHESIS_METRICS_HOST=0.0.0.0
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-m", "robust_synthesis.probes", "50052"]
ENTRYPOINT ["tini", "--", "robust-synthesis"]
CMD ["serve", "--backend", "remote", "--listen", "0.0.0.0:50051"]

FROM python AS worker
COPY --from=worker-build /opt/venv /opt/venv
COPY --from=worker-build /models /models
USER 10001:10001
EXPOSE 50061 50062 9464
# Of a GPU, a container gets what it computes with and what is measured by.
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["python", "-m", "robust_synthesis.probes", "50062"]
ENTRYPOINT ["tini", "--", "robust-synthesis"]
CMD ["worker", "--models", "/models", "--listen", "0.0.0.0:50061", "--metrics-host", "0.0.0.0", "--health-port", "50062"]

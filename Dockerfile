# The demo in a container: the same Makefile, the same pins (constraints.txt), no account, no data. Checked by hadolint; it
# has not been built by us yet.
#   docker build -t chagcast .                              # processors only
#   docker build -t chagcast --build-arg DEVICE=cuda .      # NVIDIA GPUs: the CUDA build of PyTorch from PyPI
#   docker run --name demo chagcast                         # make demo; GPUs: docker run --gpus all ...
#   docker cp demo:/chagcast/results/demo/report.html .
# Another experiment: docker run -v /my/data:/data:ro chagcast make run CONFIG=/data/my.yaml
FROM python:3.11-slim-bookworm

# make comes from the base image's own release of Debian; there is no other version of it to choose.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 chagcast \
    && install --directory --owner=1000 /chagcast

USER 1000
WORKDIR /chagcast

# What decides the installation comes first, so that a change of code does not install again.
COPY --chown=1000 Makefile pyproject.toml constraints.txt ./
ARG DEVICE=cpu
ARG EXTRAS=""
RUN case "$DEVICE" in \
        cpu) export PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu ;; \
        cuda) ;; \
        *) echo "error: DEVICE must be cpu or cuda, got $DEVICE" >&2; exit 2 ;; \
    esac \
    && PIP_NO_CACHE_DIR=1 make setup EXTRAS="$EXTRAS"

COPY --chown=1000 . .
CMD ["make", "demo"]

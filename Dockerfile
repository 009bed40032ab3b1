# diffusiongpt as a service.
#
#   docker build -t diffusiongpt .                                     # draws on the processor
#   docker build -t diffusiongpt --build-arg TORCH=cu130 .             # draws on NVIDIA cards
#   docker run -p 127.0.0.1:8000:8000 -e DIFFUSIONGPT_SERVE_API_KEYS=... -v diffusiongpt:/data diffusiongpt
#
# Weights, votes and settings lie in the volume /data; nothing is kept in the container.
FROM python:3.12-slim-bookworm

# which build of torch: cpu, or cu126, cu128, cu130 of https://download.pytorch.org/whl
ARG TORCH=cpu

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PYTHONUNBUFFERED=1

WORKDIR /app

# the large layer first: it changes when the versions do, not with the code
COPY constraints.txt ./
RUN pip install --index-url "https://download.pytorch.org/whl/${TORCH}" --constraint constraints.txt torch

COPY pyproject.toml README.md LICENSE model_zoo.yaml ./
COPY diffusiongpt ./diffusiongpt
RUN pip install --constraint constraints.txt ".[serve,postgres,hosted,mcp]" \
    && useradd --create-home --uid 1000 draws \
    && install --directory --owner=draws /data

USER 1000
VOLUME /data
ENV HF_HOME=/data/hub \
    DIFFUSIONGPT_HOME=/data/diffusiongpt \
    DIFFUSIONGPT_SERVE_HOST=0.0.0.0 \
    DIFFUSIONGPT_SERVE_PORT=8000
EXPOSE 8000

HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]

ENTRYPOINT ["diffusiongpt"]
CMD ["serve"]

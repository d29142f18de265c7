# The service: ONNX Runtime and BentoML, without torch and Airflow. With `--build-arg ACCELERATOR=cuda` it has the CUDA
# libraries, and the host needs the NVIDIA container toolkit.
FROM python:3.11.14-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=""
ARG ACCELERATOR=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 UV_COMPILE_BYTECODE=1

RUN apt-get update && apt-get install -y --no-install-recommends dumb-init && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt ./
# The packages are a layer of their own: a change of the code does not install them again.
RUN pip install -c constraints.txt uv \
    && UV_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" uv pip install --system --no-cache -c constraints.txt -r pyproject.toml \
        --extra serve $(test "$ACCELERATOR" = cpu || echo "onnxruntime-gpu[cuda,cudnn]")
COPY README.md LICENSE ./
COPY pipeline pipeline
COPY serving serving
COPY expectations expectations
RUN uv pip install --system --no-cache --no-deps .

# The user of the workers, with whom the service shares the store.
RUN useradd --create-home --uid 50000 --gid 0 saebyeok \
    && install -d -o saebyeok -g root -m 775 /saebyeok/home /saebyeok/store
USER saebyeok
# The service binds to the address in SAEBYEOK_SERVICE_URL: in a container, to all addresses.
ENV SAEBYEOK_HOME=/saebyeok/home \
    SAEBYEOK_SERVICE_URL=http://0.0.0.0:3000
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/livez', timeout=4)"]
ENTRYPOINT ["dumb-init", "--", "python", "-m", "serving"]

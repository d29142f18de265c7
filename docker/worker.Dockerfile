# A Celery worker that runs the stages; on Kubernetes, the image of the task pods. With `--build-arg ACCELERATOR=cuda` it
# has the CUDA build of torch, and the host needs the NVIDIA container toolkit.
FROM python:3.11.14-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=""
ARG ACCELERATOR=cpu
# The CPU build of torch comes from PyTorch's own index. Empty: it comes from the package index, such as a mirror.
ARG TORCH_BACKEND=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 UV_COMPILE_BYTECODE=1

# scikit-learn and torch load OpenMP. On a GPU, torch compiles layers with Triton, which needs a C compiler.
RUN apt-get update \
    && apt-get install -y --no-install-recommends dumb-init libgomp1 $(test "$ACCELERATOR" = cpu || echo gcc libc6-dev) \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt ./
# The packages are a layer of their own: a change of the code does not install them again.
# `deploy` sends golden sentences to the service and builds a Bento, so it also needs the packages of `serve`.
RUN pip install -c constraints.txt uv \
    && UV_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" uv pip install --system --no-cache -c constraints.txt -r pyproject.toml \
        --extra airflow --extra celery --extra train --extra serve \
        $(test "$ACCELERATOR" = cuda || echo ${TORCH_BACKEND:+--torch-backend "$TORCH_BACKEND"})
COPY README.md LICENSE ./
COPY pipeline pipeline
COPY serving serving
COPY expectations expectations
RUN uv pip install --system --no-cache --no-deps .
COPY dags dags
COPY plugins plugins
COPY docker/entrypoint.sh /entrypoint
COPY docker/clean-logs.sh /clean-logs

RUN useradd --create-home --uid 50000 --gid 0 saebyeok \
    && install -d -o saebyeok -g root -m 775 /opt/airflow /opt/airflow/logs /saebyeok/home /saebyeok/store
USER saebyeok
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/app/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    # A signal reaches the worker alone, which then ends its tasks itself.
    DUMB_INIT_SETSID=0 \
    # Import the copied code: a Bento includes its files, and its pins from constraints.txt next to them.
    PYTHONPATH=/app \
    SAEBYEOK_HOME=/saebyeok/home
ENTRYPOINT ["dumb-init", "--", "/entrypoint"]
CMD ["airflow", "celery", "worker", "--queues", "default,gpu", "--concurrency", "1"]

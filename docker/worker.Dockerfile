# A Celery worker that runs the stages. On a GPU host the same torch pin brings the CUDA build;
# the host needs the NVIDIA container toolkit, and compose.gpu.yaml hands the GPU in.
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# OpenMP, which scikit-learn and torch load.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY serving serving
COPY expectations expectations
# `deploy` asks the service its golden sentences and builds a Bento: it needs the serving side too.
RUN pip install -c constraints.txt ".[airflow,celery,train,serve]"
COPY dags dags
COPY plugins plugins

RUN useradd --create-home --uid 10001 saebyeok && install -d -o saebyeok /saebyeok/home /saebyeok/store
USER saebyeok
ENV AIRFLOW_HOME=/home/saebyeok/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/app/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    # The code as it was copied: a Bento takes in its files, and its pins from constraints.txt beside them.
    PYTHONPATH=/app \
    SAEBYEOK_HOME=/saebyeok/home
CMD ["airflow", "celery", "worker", "--queues", "default,gpu", "--concurrency", "2"]

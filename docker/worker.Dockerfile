# A Celery worker that runs the stages. The same torch pin installs the CUDA build. A GPU host needs the NVIDIA container
# toolkit; compose.gpu.yaml gives the container access to the GPU.
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# scikit-learn and torch load OpenMP.
RUN apt-get update && apt-get install -y --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY serving serving
COPY expectations expectations
# `deploy` sends golden sentences to the service and builds a Bento, so it also needs the packages of `serve`.
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
    # Import the copied code: a Bento includes its files, and its pins from constraints.txt next to them.
    PYTHONPATH=/app \
    SAEBYEOK_HOME=/saebyeok/home
CMD ["airflow", "celery", "worker", "--queues", "default,gpu", "--concurrency", "2"]

# Airflow's own processes: API server, scheduler, DAG processor, triggerer. Without torch and models.
FROM python:3.11-slim-bookworm

# Another package index for pip, if the build machine needs one.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY serving serving
COPY expectations expectations
RUN pip install -c constraints.txt ".[airflow,celery]"
COPY dags dags
COPY plugins plugins

RUN useradd --create-home --uid 10001 saebyeok && install -d -o saebyeok /saebyeok/home /saebyeok/store
USER saebyeok
ENV AIRFLOW_HOME=/home/saebyeok/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/app/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    SAEBYEOK_HOME=/saebyeok/home
CMD ["airflow", "scheduler"]

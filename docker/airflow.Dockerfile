# Airflow's own processes: API server, scheduler, DAG processor, triggerer. Without torch and models.
FROM python:3.11.14-slim-bookworm

# Another package index for pip, if the build machine needs one.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 UV_COMPILE_BYTECODE=1

RUN apt-get update && apt-get install -y --no-install-recommends dumb-init && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY pyproject.toml constraints.txt ./
# The packages are a layer of their own: a change of the code does not install them again.
RUN pip install -c constraints.txt uv \
    && UV_EXTRA_INDEX_URL="$PIP_EXTRA_INDEX_URL" uv pip install --system --no-cache -c constraints.txt -r pyproject.toml \
        --extra airflow --extra celery --extra kubernetes --extra fab
COPY README.md LICENSE ./
COPY pipeline pipeline
COPY serving serving
COPY expectations expectations
RUN uv pip install --system --no-cache --no-deps .
COPY dags dags
COPY plugins plugins
# Names, user and directories as in Airflow's own image, because its Helm chart relies on them.
COPY docker/entrypoint.sh /entrypoint
COPY docker/clean-logs.sh /clean-logs
COPY docker/init.sh /init

RUN useradd --create-home --uid 50000 --gid 0 saebyeok \
    && install -d -o saebyeok -g root -m 775 /opt/airflow /opt/airflow/logs /saebyeok/home /saebyeok/store
USER saebyeok
ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__DAGS_FOLDER=/app/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/app/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False \
    SAEBYEOK_HOME=/saebyeok/home
ENTRYPOINT ["dumb-init", "--", "/entrypoint"]
CMD ["airflow", "scheduler"]

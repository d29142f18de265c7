# The service: ONNX Runtime and BentoML, without torch and Airflow.
FROM python:3.11-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY pipeline pipeline
COPY serving serving
COPY expectations expectations
RUN pip install -c constraints.txt ".[serve]"

RUN useradd --create-home --uid 10001 saebyeok && install -d -o saebyeok /saebyeok/home /saebyeok/store
USER saebyeok
# The service binds to the address in SAEBYEOK_SERVICE_URL: in a container, to all addresses.
ENV SAEBYEOK_HOME=/saebyeok/home \
    SAEBYEOK_SERVICE_URL=http://0.0.0.0:3000
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:3000/livez', timeout=4)"]
ENTRYPOINT ["python", "-m", "serving"]

# Airflow with Tributary's DAGs. Built by docker-compose.yml; docs/deployment.md tells what to set.
FROM python:3.11.14-slim-bookworm

# e.g. the index that has CPU builds of torch
ARG PIP_EXTRA_INDEX_URL=""

ENV AIRFLOW_HOME=/var/lib/airflow \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

RUN groupadd --gid 10001 tributary \
    && useradd --uid 10001 --gid tributary --create-home tributary \
    && install --directory --owner tributary --group tributary \
        /var/lib/airflow /var/lib/airflow/logs /var/lib/source /var/lib/tributary

# Editable: sql/, mlflow/gates.toml and settings.toml are found beside the packages.
WORKDIR /opt/tributary
COPY . .
RUN pip install --editable ".[deploy,s3]"

USER 10001:10001
WORKDIR /var/lib/airflow
CMD ["airflow", "version"]

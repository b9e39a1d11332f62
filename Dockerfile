# Quantlytic's code: its code location, webserver, daemon, commands and MLflow's server are all this image.
FROM python:3.11.14-slim-bookworm AS build

WORKDIR /opt/quantlytic
COPY requirements.lock ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --no-cache-dir --quiet "$(grep '^uv==' requirements.lock)" \
    && /opt/venv/bin/uv pip sync --no-cache --compile-bytecode --python /opt/venv/bin/python requirements.lock

COPY setup.py requirements.in README.md LICENSE universe.yaml dagster.yaml workspace.yaml ./
COPY deploy deploy
COPY dbt_project dbt_project
COPY quantlytic_assets quantlytic_assets
# In place, because the code finds dbt_project and deploy beside itself. dbt's manifest is made once, here.
RUN /opt/venv/bin/uv pip install --no-cache --python /opt/venv/bin/python --no-deps --no-build-isolation --editable . \
    && /opt/venv/bin/python -c "from quantlytic_assets.assets.features import dbt_project; dbt_project()" \
    && /opt/venv/bin/python -m compileall -q quantlytic_assets


FROM python:3.11.14-slim-bookworm

RUN groupadd --gid 10001 quantlytic \
    && useradd --uid 10001 --gid quantlytic --home-dir /var/lib/quantlytic --no-create-home quantlytic \
    && install --directory --owner quantlytic --group quantlytic /var/lib/quantlytic /opt/dagster_home
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=quantlytic:quantlytic /opt/quantlytic /opt/quantlytic
COPY --chown=quantlytic:quantlytic deploy/dagster.services.yaml /opt/dagster_home/dagster.yaml

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/quantlytic \
    DAGSTER_HOME=/opt/dagster_home \
    DAGSTER_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1 \
    GIT_PYTHON_REFRESH=quiet \
    QUANTLYTIC_HOME=/var/lib/quantlytic
WORKDIR /opt/quantlytic
USER quantlytic
VOLUME /var/lib/quantlytic
CMD ["quantlytic", "--help"]

# The HTTP service. Without further settings it keeps its tasks in SQLite: mount a volume at /data.
FROM python:3.13-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/rebound
RUN /opt/rebound/bin/pip install --no-cache-dir --disable-pip-version-check \
    -c constraints.txt '.[all]'

FROM python:3.13-slim
LABEL org.opencontainers.image.title="Rebound" \
    org.opencontainers.image.description="Durable retries for webhooks, API calls and messages" \
    org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/rebound /opt/rebound
# A new volume takes its owner from the directory that it covers.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin rebound \
    && install -d -o rebound -g rebound /data
ENV PATH=/opt/rebound/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HTTP_HOST=0.0.0.0
WORKDIR /data
VOLUME /data
USER 10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Alive, not ready: a service whose store is away waits for it, and a restart would not help. The port
# is that of the environment; where the command line gives another, replace this.
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --start-interval=1s CMD ["python", "-c", "import http.client, sys; from rebound import Config; c = http.client.HTTPConnection('127.0.0.1', Config.for_service().address[1], timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["rebound"]
CMD ["serve"]

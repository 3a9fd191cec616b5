# Builds the wheel, and installs it with the exact versions of requirements.lock.
FROM python:3.11-slim AS build
WORKDIR /build
RUN python -m venv /opt/newsletter
# requirements-otel.lock adds OpenTelemetry (docs/guides/monitor.md).
ARG REQUIREMENTS=requirements.lock
COPY requirements.lock requirements-otel.lock ./
RUN /opt/newsletter/bin/pip install --no-cache-dir --disable-pip-version-check --require-hashes -r "$REQUIREMENTS"
COPY pyproject.toml README.md LICENSE ./
COPY newsletter newsletter
COPY subscribers subscribers
COPY templates templates
COPY config config
COPY issues issues
RUN /opt/newsletter/bin/pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir wheel . \
    && /opt/newsletter/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps wheel/*.whl

# The program without its tools. It writes to /data alone, so the rest may be read-only.
FROM python:3.11-slim
RUN useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin newsletter \
    && install --directory --owner=newsletter --mode=0700 /data
COPY --from=build /opt/newsletter /opt/newsletter
ENV PATH=/opt/newsletter/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    NEWSLETTER_DATABASE_URL=sqlite:////data/newsletter.db \
    NEWSLETTER_WEB__HOST=0.0.0.0 \
    NEWSLETTER_METRICS__HOST=0.0.0.0
USER 10001
# Temporary files, the departure log and uploads are here, too.
WORKDIR /data
VOLUME /data
EXPOSE 8000
STOPSIGNAL SIGTERM
# A worker answers here with --health-port 8000.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["newsletter"]
CMD ["serve"]

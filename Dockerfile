# The image of every ragver process: `ragver serve`, with or without the indexer, and `ragver migrate`.
# It holds the extra `server`; the stores are elsewhere, at RAGVER_DATABASE_URL and RAGVER_QDRANT_URL.

FROM python:3.11.14-slim-trixie AS build
WORKDIR /src
COPY constraints.txt ./
RUN pip install --no-cache-dir --disable-pip-version-check -c constraints.txt hatchling
COPY pyproject.toml README.md ./
COPY ragver ragver
COPY schema schema
RUN pip wheel --no-cache-dir --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheels .
# Without a pip of its own: what runs installs nothing. Wheels only, so that no compiler is needed here either.
RUN python -m venv --without-pip /opt/ragver \
    && wheel="$(echo /wheels/ragver-*.whl)" \
    && pip --python /opt/ragver/bin/python install --no-cache-dir --disable-pip-version-check \
        --only-binary :all: -c constraints.txt "${wheel}[server]"

FROM python:3.11.14-slim-trixie
RUN groupadd --system --gid 10001 ragver \
    && useradd --system --uid 10001 --gid ragver --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin ragver
COPY --from=build /opt/ragver /opt/ragver
# Readable to its user, whatever the umask of whoever checked it out.
COPY --chmod=644 deploy/healthcheck.py /opt/ragver/healthcheck.py
ENV PATH=/opt/ragver/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# By number, so that an orchestrator can see that it is not root.
USER 10001:10001
EXPOSE 8000
# Whether the process lives, not whether the stores do: they are shared, and a new container would not bring them back.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "/opt/ragver/healthcheck.py"]
ENTRYPOINT ["ragver"]
CMD ["serve"]

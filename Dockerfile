# The image of Sluice: the gateway, beside what stdio MCP servers are written for (Node with npx, Python with uvx).
#
#   docker build -t sluice .                     with the two servers that docker-compose.yml serves baked in
#   docker build -t sluice --target gateway .    without them
#
# Nothing is downloaded when a container starts, and nothing in it runs as root (config/image/entrypoint.sh).

# The base images, by tag: rebuilding takes their security updates. To pin one to what has been reviewed, give its digest:
#   docker build --build-arg RUNTIME_IMAGE=debian:bookworm-slim@sha256:… .
ARG RUST_IMAGE=rust:1-bookworm
ARG NODE_IMAGE=node:22-bookworm-slim
ARG RUNTIME_IMAGE=debian:bookworm-slim

# The gateway. The cache mounts keep the compiled dependencies, so a changed source rebuilds one crate.
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --locked --release --bin sluice && install -D target/release/sluice /out/sluice

FROM ${NODE_IMAGE} AS node

# uv comes from its Python package, pinned by hash, so that the same file is used wherever the image is built.
FROM ${RUNTIME_IMAGE} AS uv
COPY config/image/uv/requirements.txt /uv.txt
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-pip \
    && python3 -m pip install --no-cache-dir --no-deps --only-binary :all: --require-hashes --target /uv -r /uv.txt

FROM ${RUNTIME_IMAGE} AS gateway
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 sluice \
    && useradd --uid 10001 --gid 10001 --create-home --shell /usr/sbin/nologin sluice \
    && install -d -o sluice -g sluice /workspace
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules /usr/local/lib/node_modules
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
COPY --from=uv /uv/bin/uv /uv/bin/uvx /usr/local/bin/
COPY --from=build /out/sluice /usr/local/bin/sluice
COPY --chmod=755 config/image/entrypoint.sh /usr/local/bin/sluice-entrypoint

WORKDIR /workspace
VOLUME ["/workspace"]
EXPOSE 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["sluice", "health"]
ENTRYPOINT ["sluice-entrypoint"]
CMD ["demo", "--listen", "0.0.0.0:8081", "--workspace", "/workspace"]

# The servers of docker-compose.yml, each at a pinned version with pinned dependencies.
FROM gateway AS servers
COPY config/image/python /opt/servers/python
COPY config/image/node /opt/servers/node
RUN --mount=type=cache,target=/var/cache/packages,sharing=locked \
    export UV_CACHE_DIR=/var/cache/packages/uv npm_config_cache=/var/cache/packages/npm \
    && uv venv --python /usr/bin/python3 /opt/servers/python/venv \
    && uv pip install --python /opt/servers/python/venv --link-mode copy --compile-bytecode --require-hashes \
        -r /opt/servers/python/requirements.txt \
    && npm ci --prefix /opt/servers/node --omit dev --ignore-scripts --no-audit --no-fund

# The default.
FROM servers AS sluice

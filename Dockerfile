# syntax=docker/dockerfile:1.7
# Builds the release, and copies it into a small image.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
# jemalloc is built with it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make \
    && rm -rf /var/lib/apt/lists/*
COPY . .
# The caches keep dependencies from one build to the next. They are not part of the image, so the program is copied out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin batchwright \
    && cp target/release/batchwright /usr/local/bin/batchwright

FROM debian:bookworm-slim
# TLS connections to upstreams, databases and blob stores need the certificates.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin batchwright \
    && install -d -o batchwright -g batchwright /data
COPY --from=build /usr/local/bin/batchwright /usr/local/bin/batchwright

USER 10001:10001
WORKDIR /data
# The data directory of a single process. Replicas use a database and a blob store instead.
VOLUME /data
ENV BATCHWRIGHT_LISTEN=0.0.0.0:8080 \
    BATCHWRIGHT_DATA_DIR=/data
# `serve` does not start on that address before there is a key (`keys create --project NAME`), unless it is told to answer
# calls without one: BATCHWRIGHT_ALLOW_ANONYMOUS=true.
EXPOSE 8080
# For `serve`, which listens only once database and blob store have answered. The image has no HTTP client but `bash`.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --start-interval=1s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/${BATCHWRIGHT_LISTEN##*:}; printf 'GET /healthz HTTP/1.0\\n\\n' >&3; grep -q ' 200 ' <&3"]
ENTRYPOINT ["batchwright"]
CMD ["serve"]

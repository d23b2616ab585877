# syntax=docker/dockerfile:1
# The dependencies are a layer of their own, built from the manifest alone, so that a change of the source
# rebuilds this crate and nothing else.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo '//! Stands in while the dependencies are built.' > src/lib.rs \
    && echo '//! Stands in while the dependencies are built.\nfn main() {}' > src/main.rs \
    && cargo build --release --locked \
    && rm -r src
COPY . .
# Cargo goes by the time of change, and a copied file may be older than what stood in for it.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home --home-dir /var/lib/cutover cutover
COPY --from=build /build/target/release/cutover /usr/local/bin/cutover
USER 10001
WORKDIR /var/lib/cutover
# The doors and the admin plane. Both listen on loopback unless the config says otherwise.
EXPOSE 8080 8081
# Exit code 3 means that no proxy answers; 1 is a finding, and no reason to restart anything.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD cutover status --json > /dev/null || [ $? -eq 1 ]
STOPSIGNAL SIGTERM
ENTRYPOINT ["cutover"]
CMD ["serve"]

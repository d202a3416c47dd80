# Builds the program and copies it, its libraries and CA certificates into an empty image.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# Builds the dependencies with an empty program: this layer is reused until Cargo.toml or Cargo.lock change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/serving \
 && echo 'fn main() {}' | tee build.rs src/main.rs benches/layers.rs >benches/serving/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked

COPY build.rs ./
COPY proto proto
COPY src src
# Cargo would consider the sources older than the empty program.
RUN find build.rs src -exec touch {} + && cargo build --release --locked --offline
RUN mkdir -p /image/bin /image/etc/ssl/certs \
 && cp target/release/ssm-gateway /image/bin/ \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && ldd target/release/ssm-gateway | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} /image

FROM scratch
# The builder adds version and revision: --label.
LABEL org.opencontainers.image.title="ssm-gateway" \
      org.opencontainers.image.description="A gRPC gateway in front of AWS Systems Manager's DescribeInstanceInformation" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
ENV PATH=/bin SSM_GATEWAY_LISTEN=0.0.0.0:50051 SSM_GATEWAY_ADMIN_LISTEN=0.0.0.0:9464
USER 65532:65532
EXPOSE 50051 9464
# The admin address never uses TLS, whatever callers use.
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s CMD ["ssm-gateway", "health", "--admin", "http://127.0.0.1:9464"]
ENTRYPOINT ["ssm-gateway"]
CMD ["serve"]

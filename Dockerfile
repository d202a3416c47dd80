# Builds the program and puts it, alone with CA certificates, into an empty image.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto proto
COPY src src
RUN cargo build --release --locked
# What the program is linked to, besides itself.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN mkdir -p /image/bin /image/etc/ssl/certs /image/lib64 \
 && cp target/release/ssm-gateway /image/bin/ \
 && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
 && ldd /image/bin/ssm-gateway | grep -o '/[^ ]*' | xargs -I{} cp -L --parents {} /image

FROM scratch
COPY --from=build /image /
ENV PATH=/bin SSM_GATEWAY_LISTEN=0.0.0.0:50051 SSM_GATEWAY_ADMIN_LISTEN=0.0.0.0:9464
USER 65532:65532
EXPOSE 50051 9464
ENTRYPOINT ["ssm-gateway"]
CMD ["serve"]

//! The composition root: from a configuration to a running gateway. The only place that knows every component.

use std::{io, net::SocketAddr, sync::Arc, time::SystemTime};

use tonic::service::Routes;
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::ServiceBuilder;
use tracing::info;

use crate::{
    config::Config,
    edge::{self, CallLogLayer, DeadlineLayer, Listener},
    listing::{self, Listings, Target},
    model::TargetName,
    proto::{self, target_service_server::TargetServiceServer},
    service::{self, SERVICE_NAME, Service, Targets},
    upstream,
};

/// A gateway that is bound and ready to serve.
#[derive(Debug)]
pub struct App {
    listener: Listener,
    routes: Routes,
    health: HealthReporter,
    listings: Listings,
}

/// Why a gateway could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The target's client could not be made.
    #[error("target {0}: {1}")]
    Upstream(TargetName, upstream::BuildError),
    /// The address could not be bound.
    #[error("could not listen on {0}")]
    Bind(SocketAddr, #[source] io::Error),
    /// The contract's descriptors could not be served.
    #[error("could not build the reflection service")]
    Reflection(#[from] tonic_reflection::server::Error),
}

impl App {
    /// Builds every component and binds the address. AWS is asked nothing yet.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn build(config: Config) -> Result<Self, AppError> {
        let (default_target, targets) = (config.default_target(), Self::targets(&config).await?);
        let listings = config.listing.build(targets, service::page_head, SystemTime::now);
        let (health, health_server) = tonic_health::server::health_reporter();
        health.set_service_status(SERVICE_NAME, ServingStatus::Serving).await;
        let targets = TargetServiceServer::new(Targets::new(listings.clone(), default_target.clone()));
        let routes = Routes::new(Service::new(listings.clone(), default_target))
            .add_service(targets)
            .add_service(health_server)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?)
            .prepare();
        let listen = config.edge.listen;
        let listener = config.edge.bind().await.map_err(|error| AppError::Bind(listen, error))?;
        Ok(Self { listener, routes, health, listings })
    }

    /// Builds every target, as for serving. AWS is asked nothing.
    ///
    /// # Errors
    /// [`AppError::Upstream`].
    pub async fn targets(config: &Config) -> Result<Vec<Target>, AppError> {
        let mut targets = Vec::new();
        for (name, (upstream, listing::Config { ttl, max_stale, .. })) in config.targets() {
            let upstream = upstream.build().await.map_err(|error| AppError::Upstream(name.clone(), error))?;
            targets.push(Target::new(name, Arc::new(upstream), ttl, max_stale));
        }
        Ok(targets)
    }

    /// The address that is bound, with the port that was chosen.
    pub fn addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The listings, for a look at what they did.
    pub fn listings(&self) -> &Listings {
        &self.listings
    }

    /// Serves until `stop` is done, then drains.
    pub async fn serve(self, stop: impl Future<Output = ()>) {
        let service = ServiceBuilder::new()
            .layer(CallLogLayer)
            .map_response(edge::with_error_info)
            .layer(DeadlineLayer)
            .service(self.routes);
        let stop = async {
            stop.await;
            info!("draining");
            for name in ["", SERVICE_NAME] {
                self.health.set_service_status(name, ServingStatus::NotServing).await;
            }
        };
        for target in self.listings.targets() {
            info!(name = %target.name(), region = target.region(), "target");
        }
        info!(addr = %self.listener.addr(), "listening");
        self.listener.serve(service, stop).await;
        info!("stopped");
    }
}

/// Describes every service, and the details that errors carry.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

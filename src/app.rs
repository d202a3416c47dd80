//! The composition root: from a configuration to a running gateway. The only place that knows every component.

mod metrics;
mod process;
mod routes;
mod view;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;

use futures_util::{Stream, StreamExt as _, future};
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use prometheus::Registry;
use tokio::sync::mpsc;

use tower::{Service as TowerService, ServiceBuilder};
use tracing::{error, info, warn};

use self::{
    routes::Routes,
    view::{Current, View},
};
use crate::{
    admin::{self, Admin},
    config::{Config, ConfigError},
    display::ErrorChain,
    edge::{
        Address, ArrivalLayer, AuthenticateLayer, Authenticator, CatchPanicLayer, FileError, HeaderListLayer,
        LifetimeLayer, LimitsLayer, ListenError, Listener, Metrics, ObserveLayer, ProtocolLayer, Reloadable,
        RouteLayer, Stage, Stages,
    },
    listing::{self, Listings, Target},
    model::TargetName,
    service,
    upstream::{self, CredentialsCache},
};

/// A gateway that is bound and ready to serve.
#[derive(Debug)]
pub struct App {
    listener: Listener,
    admin: Admin,
    live: Live,
}

/// What calls are served by. Another configuration makes another one, which takes over what goes on.
#[derive(Debug)]
struct Live {
    config: Config,
    listings: Listings,
    routes: Routes,
    authenticator: Arc<Authenticator>,
    limits: LimitsLayer,
    lasting: Lasting,
}

/// What no other configuration changes.
#[derive(Debug, Clone)]
struct Lasting {
    stages: Stages,
    metrics: Metrics,
    registry: Registry,
    credentials: CredentialsCache,
    started: Instant,
    /// Set once every required target has answered: what becomes of them later takes nobody away.
    has_been_ready: Arc<AtomicBool>,
    /// Whether the configuration that it was told last could not be used.
    has_reload_failed: Arc<AtomicBool>,
}

/// What a running gateway is told.
#[derive(Debug)]
pub enum Signal {
    /// Go on with another configuration, if it could be read.
    Reload(Result<Box<Config>, ConfigError>),
    /// Drain, and stop; the second time, stop at once.
    Stop,
}

/// Why a gateway could not be built.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The configuration does not go with what is fixed while the gateway runs.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The target's client could not be made.
    #[error("target {0}: {1}")]
    Upstream(TargetName, upstream::BuildError),
    /// It cannot listen.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// It cannot listen to administrators.
    #[error(transparent)]
    Admin(#[from] admin::BindError),
    /// The metrics have names that Prometheus does not take.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
    /// The keys that prove callers cannot be used.
    #[error("cannot load the authentication keys")]
    Authenticator(#[from] FileError),
    /// The descriptors of the contract could not be read.
    #[error("could not read the descriptors of the contract")]
    Descriptors(#[from] prost_reflect::DescriptorError),
}

impl App {
    /// Builds every component and binds the address. AWS is asked nothing yet.
    ///
    /// # Errors
    /// [`AppError`].
    pub async fn build(config: Config) -> Result<Self, AppError> {
        let lasting = Lasting::new()?;
        let targets = targets(&config, &lasting.credentials).await?;
        let listings = config.listing.build(targets, service::page_head, SystemTime::now);
        let limits = config.limits.build();
        let live = Live::build(config, listings, limits, lasting).await?;
        let listener = live.config.edge.clone().bind().await?;
        let admin = live.config.admin.clone().bind().await?;
        Ok(Self { listener, admin, live })
    }

    /// Builds every target, as for serving. AWS is asked nothing.
    ///
    /// # Errors
    /// [`AppError::Upstream`].
    pub async fn targets(config: &Config) -> Result<Vec<Arc<Target>>, AppError> {
        targets(config, &CredentialsCache::default()).await
    }

    /// Reads the certificates and keys that are named, as for serving.
    ///
    /// # Errors
    /// [`AppError::Listen`] and [`AppError::Authenticator`].
    pub async fn check_files(config: &Config) -> Result<(), AppError> {
        config.edge.check_files().await?;
        authenticator(config).await.map(drop)
    }

    /// The address that is bound, with the port that was chosen.
    pub fn addr(&self) -> &Address {
        self.listener.addr()
    }

    /// The address that administrators ask at.
    pub fn admin_addr(&self) -> SocketAddr {
        self.admin.addr()
    }

    /// The listings, for a look at what they did.
    pub fn listings(&self) -> &Listings {
        &self.live.listings
    }

    /// How many calls go on, for a look: those of the limits that the gateway was built with.
    pub fn limits(&self) -> &LimitsLayer {
        &self.live.limits
    }

    /// Serves until it is told to stop, then drains.
    pub async fn serve(self, signals: impl Stream<Item = Signal>) {
        let Self { listener, admin, mut live } = self;
        let Lasting { stages, metrics, .. } = live.lasting.clone();
        let service = Reloadable::new(live.service());
        let current = Arc::new(Current(ArcSwap::from_pointee(live.view())));
        for target in live.listings.targets() {
            info!(name = %target.name(), region = target.region(), "target");
        }
        live.warn();
        info!(addr = %admin.addr(), "admin");
        info!(addr = %listener.addr(), "listening");
        let answering = admin.serve(Arc::clone(&current) as Arc<dyn admin::Gateway>);
        let serving = listener.serve(service.clone(), stages.clone(), metrics);
        // A configuration may take its time to be used, and a signal to stop must not wait for that.
        let (configs, mut to_use) = mpsc::unbounded_channel();
        let listening = signals.for_each(|signal| {
            match signal {
                Signal::Reload(config) => drop(configs.send(config)),
                Signal::Stop if stages.advance(Stage::NotServing) => info!("draining"),
                Signal::Stop => {
                    warn!("stopping at once");
                    stages.advance(Stage::CutOff);
                }
            }
            future::ready(())
        });
        let reloading = async {
            let mut asking = live.view().ask_required();
            while let Some(config) = to_use.recv().await {
                // What was reached is kept, though nobody looked.
                live.view().is_ready_for_good();
                let reloaded = match config {
                    Ok(config) => live.reload(*config).await,
                    Err(error) => Err(error.into()),
                };
                live.lasting.has_reload_failed.store(reloaded.is_err(), Relaxed);
                match reloaded {
                    Ok(()) => {
                        service.replace(live.service());
                        current.0.store(Arc::new(live.view()));
                        asking = live.view().ask_required();
                        live.listings.forget_others();
                        live.warn();
                        info!(targets = live.listings.targets().count(), "the configuration is in use");
                    }
                    Err(error) => {
                        let error = ErrorChain(&error);
                        error!(%error, "the configuration cannot be used: the old one stays in use");
                    }
                }
            }
            drop(asking);
        };
        tokio::select! {
            () = serving => {}
            ((), (), ()) = future::join3(listening, reloading, answering) => {}
        }
        info!("stopped");
    }
}

impl Lasting {
    fn new() -> Result<Self, AppError> {
        let (metrics, registry) = metrics::counting()?;
        let (stages, started) = (Stages::default(), Instant::now());
        let (has_been_ready, has_reload_failed) = (Arc::default(), Arc::default());
        let credentials = CredentialsCache::default();
        Ok(Self { stages, metrics, registry, credentials, started, has_been_ready, has_reload_failed })
    }
}

async fn targets(config: &Config, credentials: &CredentialsCache) -> Result<Vec<Arc<Target>>, AppError> {
    let mut targets = Vec::new();
    for (name, (upstream, listing)) in config.targets() {
        targets.push(target(name, upstream, listing, credentials).await?);
    }
    Ok(targets)
}

async fn target(
    name: TargetName,
    upstream: upstream::Config,
    listing: listing::Config,
    credentials: &CredentialsCache,
) -> Result<Arc<Target>, AppError> {
    let upstream = Box::pin(upstream.build(name.clone(), credentials))
        .await
        .map_err(|error| AppError::Upstream(name.clone(), error))?;
    Ok(Arc::new(Target::new(name, Arc::new(upstream), listing.ttl, listing.max_stale)))
}

async fn authenticator(config: &Config) -> Result<Authenticator, AppError> {
    Ok(config.auth.clone().build(config.has_client_certs(), config.edge.reload_interval).await?)
}

impl Live {
    async fn build(
        config: Config,
        listings: Listings,
        limits: LimitsLayer,
        lasting: Lasting,
    ) -> Result<Self, AppError> {
        let authenticator = authenticator(&config).await?;
        let routes = Routes::new(&config, &listings, &lasting.stages)?;
        Ok(Self { config, listings, routes, authenticator: Arc::new(authenticator), limits, lasting })
    }

    fn view(&self) -> View {
        View {
            config: Arc::new(self.config.clone()),
            listings: self.listings.clone(),
            limits: self.limits.clone(),
            lasting: self.lasting.clone(),
        }
    }

    /// Takes over another configuration whole, or not at all. Targets and limits that it does not change go on as they are.
    async fn reload(&mut self, mut config: Config) -> Result<(), AppError> {
        // What is used after a restart only must be good, too.
        config.edge.check_files().await?;
        let fixed = config.keep_fixed(&self.config)?;
        let old = self.config.targets();
        let mut targets = Vec::new();
        for (name, (upstream, listing)) in config.targets() {
            let is_same = old.get(&name).is_some_and(|(old, freshness)| {
                (old, freshness.ttl, freshness.max_stale) == (&upstream, listing.ttl, listing.max_stale)
            });
            targets.push(match self.listings.target(&name).filter(|_| is_same) {
                Some(target) => Arc::clone(target),
                None => target(name, upstream, listing, &self.lasting.credentials).await?,
            });
        }
        let listings = self.listings.over(targets);
        let is_same = config.limits.counts_as(&self.config.limits);
        let limits = if is_same { self.limits.clone() } else { config.limits.build() };
        *self = Self::build(config, listings, limits, self.lasting.clone()).await?;
        for table in fixed {
            warn!(table, "the table has changed, and is used after a restart");
        }
        Ok(())
    }

    fn warn(&self) {
        for warning in self.config.unmatched() {
            warn!("{warning}");
        }
    }

    fn service(
        &self,
    ) -> impl TowerService<
        Request<Incoming>,
        Response = Response<impl Body<Data = bytes::Bytes, Error = Infallible> + Send + use<>>,
        Error = Infallible,
        Future: Send,
    > + Clone
    + Send
    + Sync
    + use<> {
        let Lasting { stages, metrics, .. } = self.lasting.clone();
        let Config { log, trace, limits, edge, listing, .. } = &self.config;
        let (max, stall_timeout) = (limits.max_call_time, listing.stall_timeout);
        ServiceBuilder::new()
            .layer(ProtocolLayer)
            .layer(RouteLayer)
            .layer(ObserveLayer { metrics, slow_call: log.slow_call, is_traced: trace.is_on() })
            .layer(CatchPanicLayer)
            .layer(HeaderListLayer(edge.max_header_list_size))
            .layer(AuthenticateLayer(Arc::clone(&self.authenticator)))
            .layer(self.limits.clone())
            .layer(LifetimeLayer { max, stages, stall_timeout })
            .layer(ArrivalLayer(edge.request_timeout))
            .service(self.routes.clone())
    }
}

//! The RPCs: each one validates, asks a listing, and converts. Errors become a status here, once.

pub mod answer;
mod describe;
mod failure;
mod status;
mod stream;
mod validate;

mod server {
    #![allow(clippy::all, clippy::pedantic, clippy::restriction, unreachable_pub, reason = "generated code")]
    include!(concat!(env!("OUT_DIR"), "/server/ssm_gateway.v1.rs"));
}

use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

pub use self::server::instance_information_service_server::SERVICE_NAME;
use self::{
    answer::Answer,
    server::instance_information_service_server::{InstanceInformationService, InstanceInformationServiceServer},
};
use crate::{
    listing::Listings,
    proto::{DescribeInstanceInformationRequest, StreamInstanceInformationRequest},
};

/// The largest request, in bytes: AWS takes 100 values a filter, and nobody needs more than this of them.
const MAX_REQUEST_SIZE: usize = 1 << 20;

/// `ssm_gateway.v1.InstanceInformationService` over listings.
#[derive(Debug, Clone)]
pub struct Service {
    listings: Listings,
}

impl Service {
    /// Builds the service, ready to be mounted.
    #[must_use]
    pub fn server(listings: Listings) -> InstanceInformationServiceServer<Self> {
        InstanceInformationServiceServer::new(Self { listings }).max_decoding_message_size(MAX_REQUEST_SIZE)
    }
}

#[tonic::async_trait]
impl InstanceInformationService for Service {
    async fn describe_instance_information(
        &self,
        request: Request<DescribeInstanceInformationRequest>,
    ) -> Result<Response<Answer>, Status> {
        Ok(Response::new(describe::describe(&self.listings, request.into_inner()).await?))
    }

    type StreamInstanceInformationStream = BoxStream<'static, Result<Answer, Status>>;

    async fn stream_instance_information(
        &self,
        request: Request<StreamInstanceInformationRequest>,
    ) -> Result<Response<Self::StreamInstanceInformationStream>, Status> {
        Ok(Response::new(stream::stream(&self.listings, request.into_inner()).await?))
    }
}

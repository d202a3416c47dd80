//! ssm-gateway: one gRPC service between a company's services and AWS Systems Manager's `DescribeInstanceInformation`.
//!
//! A call arrives at the [`edge`]. The [`service`] authorises and validates it and asks [`read`], which fetches pages
//! from a [`source`], behind which [`aws`] asks SSM as one target sees it. On its way down a call becomes a query of
//! the [`model`], once; on its way up an answer of AWS becomes encoded records, once, which are sent as they are.
//!
//! # Examples
//! A gateway in front of the simulator, and a call to it:
//!
//! ```
//! use futures_util::stream;
//! use ssm_gateway::{
//!     app::App,
//!     config::Config,
//!     edge::Address,
//!     proto::{
//!         DescribeInstanceInformationRequest,
//!         instance_information_service_client::InstanceInformationServiceClient,
//!     },
//!     simulator,
//! };
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let simulator = simulator::Config { nodes: 20, ..simulator::Config::default() }.start().await?;
//! let mut config = Config::default();
//! config.edge.listen = Address::Tcp(([127, 0, 0, 1], 0).into());
//! config.admin.listen.set_port(0);
//! config.upstream.region = Some("us-east-1".to_owned());
//! config.upstream.endpoint_url = Some(simulator.url());
//! config.upstream.simulated_credentials = true;
//! let gateway = App::build(config).await?;
//! let url = format!("http://{}", gateway.addr());
//! let serving = tokio::spawn(gateway.serve(stream::pending()));
//!
//! let mut client = InstanceInformationServiceClient::connect(url).await?;
//! let request = DescribeInstanceInformationRequest { max_results: Some(5), ..Default::default() };
//! let page = client.describe_instance_information(request).await?.into_inner();
//! assert_eq!(page.instance_information_list.len(), 5);
//! assert!(page.next_token.is_some());
//! serving.abort();
//! # Ok(())
//! # }
//! ```
//!
//! | module | what it is |
//! | --- | --- |
//! | [`model`] | query, target, freshness, records: plain values |
//! | [`access`] | principals, the policy, hashes of tokens: plain values |
//! | [`display`] | errors, file names and settings as log lines and messages display them |
//! | [`pem`] | certificates and keys in PEM, read strictly |
//! | [`proto`] | the public contract, generated |
//! | [`source`] | the port that listings fetch pages through, and its decorators: pace, retries, traces |
//! | [`aws`] | the adapter behind it: SSM, credentials, conversion, errors |
//! | [`read`] | how a query is answered: one walk upstream for any number of readers, freshness, failures, memory, cursors |
//! | [`service`] | the RPCs, authorisation, validation, the failures of reads |
//! | [`edge`] | listener, TLS and drain; authentication, limits and deadlines; the report of every call |
//! | [`grpc`] | requests, answers, failures and notes of a call, the same for every method |
//! | `reflection` | the contract as gRPC's reflection describes it |
//! | `accept` | the accept loop of every listener |
//! | [`telemetry`] | logs and traces |
//! | [`admin`] | HTTP for operators: metrics, probes, status |
//! | `clock` | the port for wall time |
//! | [`setting`] | the rules that settings share |
//! | [`config`] | the configuration file |
//! | [`app`] | the composition root |
//! | [`simulator`] | a simulated SSM, for trials and tests |
//! | [`cli`] | the commands |

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests spawn what they await, and make up times"))]

mod accept;
pub mod access;
pub mod admin;
pub mod app;
pub mod aws;
pub mod cli;
mod clock;
pub mod config;
pub mod display;
pub mod edge;
pub mod grpc;
pub mod model;
pub mod pem;
pub mod proto;
pub mod read;
mod reflection;
pub mod service;
pub mod setting;
pub mod simulator;
pub mod source;
pub mod telemetry;

//! ssm-gateway: one gRPC service between a company's services and AWS Systems Manager's `DescribeInstanceInformation`.
//!
//! A call comes in at the [`edge`], is validated and answered by the [`service`], which reads a [`listing`], which walks
//! an [`upstream`] - AWS's SSM as one target sees it. On its way down a call becomes a query of the [`model`], once; on its
//! way up an answer of AWS becomes encoded records, once, which are sent as they are.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`model`] | query, target, freshness, records: plain values |
//! | [`access`] | who calls and what the policy lets them do: principals, rules, hashes of tokens |
//! | [`display`] | errors, file names and settings as log lines and messages display them |
//! | [`pem`] | certificates and keys in PEM, read strictly |
//! | [`proto`] | the public contract, generated |
//! | [`upstream`] | the port that listings ask, and the SSM adapter behind it |
//! | [`listing`] | one walk upstream for any number of readers: freshness, failures, memory, cursors |
//! | [`service`] | the RPCs and the status mapping |
//! | [`edge`] | listener, TLS and drain; who calls, how much, how long; the report of every call |
//! | [`grpc`] | requests, answers, failures and notes of a call, the same for every method |
//! | `reflection` | the contract as gRPC's reflection describes it |
//! | `accept` | accepting connections, the same for every listener |
//! | [`telemetry`] | logs and traces |
//! | [`admin`] | what those who look after it ask: metrics, probes, how it is |
//! | `clock` | the port for wall time |
//! | [`setting`] | the rules that settings share |
//! | [`config`] | the configuration file |
//! | [`app`] | puts them together |
//! | [`simulator`] | an SSM of our own, for trying and testing |
//! | [`cli`] | the commands |

#![cfg_attr(test, expect(clippy::disallowed_methods, reason = "tests spawn what they await, and make up times"))]

mod accept;
pub mod access;
pub mod admin;
pub mod app;
pub mod cli;
mod clock;
pub mod config;
pub mod display;
pub mod edge;
pub mod grpc;
pub mod listing;
pub mod model;
pub mod pem;
pub mod proto;
mod reflection;
pub mod service;
pub mod setting;
pub mod simulator;
pub mod telemetry;
pub mod upstream;

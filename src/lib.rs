//! ssm-gateway: one gRPC service between a company's services and AWS Systems Manager's `DescribeInstanceInformation`.
//!
//! A call comes in at the [`edge`], is validated and answered by the [`service`], which asks [`read`], which fetches
//! pages from a [`source`], behind which [`aws`] asks SSM as one target sees it. On its way down a call becomes a query
//! of the [`model`], once; on its way up an answer of AWS becomes encoded records, once, which are sent as they are.
//!
//! | module | what it is |
//! | --- | --- |
//! | [`model`] | query, target, freshness, records: plain values |
//! | [`access`] | who calls and what the policy lets them do: principals, rules, hashes of tokens |
//! | [`display`] | errors, file names and settings as log lines and messages display them |
//! | [`pem`] | certificates and keys in PEM, read strictly |
//! | [`proto`] | the public contract, generated |
//! | [`source`] | the port that listings fetch pages through, and its decorators: pace, retries, traces |
//! | [`aws`] | the adapter behind it: SSM, credentials, conversion, errors |
//! | [`read`] | how a question is answered: one walk upstream for any number of readers, freshness, failures, memory, cursors |
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

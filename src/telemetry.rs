//! Logs on standard error, and traces over OTLP.

mod batched;
mod logs;
mod traces;

pub use self::{
    batched::LogGuard,
    logs::{Config as LogConfig, Format, LogError},
    traces::{Config as TraceConfig, TraceError, Traces},
};

//! What the program tells of itself while it runs: logs on standard error, and traces by OTLP.

mod batched;
mod logs;
mod traces;

pub use self::{
    batched::LogGuard,
    logs::{Config as LogConfig, Format, LogError},
    traces::{Config as TraceConfig, TraceError, Traces},
};

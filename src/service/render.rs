use super::{describe, stream};
use crate::read::{Head, Render, WholePage};

/// Renders whole pages as messages of both methods.
#[derive(Debug)]
pub struct Renderer;

impl Render for Renderer {
    /// A stream's message is one piece of memory, since a stream is most messages.
    fn heads(&self, page: &WholePage<'_>) -> Vec<Head> {
        vec![describe::head(page), stream::head(page)]
    }
}

/// Why a connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The peer gives up most of its calls, too soon.
    Resets,
    /// The HTTP/2 library takes what the peer sends for an attack.
    Flood,
    /// The peer breaks the protocol.
    Protocol,
    /// The peer does not finish what it began.
    Slow,
    /// The peer does not speak HTTP/2.
    NotHttp2,
}

impl Cut {
    /// All reasons.
    pub(super) const ALL: [Self; 5] = [Self::Resets, Self::Flood, Self::Protocol, Self::Slow, Self::NotHttp2];

    /// Returns the name in metrics and in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Flood => "flood",
            Self::Protocol => "protocol",
            Self::Slow => "slow",
            Self::NotHttp2 => "not_http2",
        }
    }
}

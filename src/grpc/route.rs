use crate::access::Method;

/// The full name of the service that answers questions about nodes.
pub const SERVICE_NAME: &str = "ssm_gateway.v1.InstanceInformationService";
/// The full name of the service that lists targets.
pub const TARGET_SERVICE_NAME: &str = "ssm_gateway.v1.TargetService";

const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

/// A method that the gateway has. The edge puts the route of a call into the extensions of its request, once; whoever
/// treats some methods differently goes by that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Route {
    /// A method of the gateway's own services.
    Method(Method),
    HealthCheck,
    HealthWatch,
    /// Reflection, in the two versions of the protocol, whose messages are the same on the wire.
    Reflection,
    ReflectionAlpha,
}

impl Route {
    /// Every method.
    pub(crate) const ALL: [Self; 7] = [
        Self::Method(Method::DescribeInstanceInformation),
        Self::Method(Method::StreamInstanceInformation),
        Self::Method(Method::ListTargets),
        Self::HealthCheck,
        Self::HealthWatch,
        Self::Reflection,
        Self::ReflectionAlpha,
    ];

    /// Returns the method that a path names; none if the gateway has no such method.
    pub(crate) fn of(path: &str) -> Option<Self> {
        let names = path.strip_prefix('/')?.split_once('/')?;
        Self::ALL.into_iter().find(|route| route.names() == names)
    }

    /// Returns the full name of the method: that of its service, a slash and its own.
    pub(crate) fn full_name(self) -> String {
        let (service, method) = self.names();
        format!("{service}/{method}")
    }

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Method(method @ (Method::DescribeInstanceInformation | Method::StreamInstanceInformation)) => {
                (SERVICE_NAME, method.as_str())
            }
            Self::Method(method @ Method::ListTargets) => (TARGET_SERVICE_NAME, method.as_str()),
            Self::HealthCheck => (HEALTH, "Check"),
            Self::HealthWatch => (HEALTH, "Watch"),
            Self::Reflection => (REFLECTION, "ServerReflectionInfo"),
            Self::ReflectionAlpha => (REFLECTION_ALPHA, "ServerReflectionInfo"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_one_method_or_none() {
        for route in Route::ALL {
            assert_eq!(Route::of(&format!("/{}", route.full_name())), Some(route));
        }
        let health = Route::HealthCheck.full_name();
        for path in ["", "/", &health, &format!("//{health}"), &format!("/{health}/"), "/grpc.health.v1.Health/List"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }
}

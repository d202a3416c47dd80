use crate::access::Method;

/// The method that the path of a call names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route {
    /// A method of the gateway's own services, which the policy is about.
    Method(Method),
    /// `grpc.health.v1.Health/Check`.
    HealthCheck,
    /// `grpc.health.v1.Health/Watch`.
    HealthWatch,
    /// `ServerReflectionInfo`, of both versions: their messages are the same on the wire.
    Reflection,
}

impl Route {
    /// Returns the method that a path names; none if the gateway has no such method.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/ssm_gateway.v1.InstanceInformationService/DescribeInstanceInformation" => {
                Self::Method(Method::DescribeInstanceInformation)
            }
            "/ssm_gateway.v1.InstanceInformationService/StreamInstanceInformation" => {
                Self::Method(Method::StreamInstanceInformation)
            }
            "/ssm_gateway.v1.TargetService/ListTargets" => Self::Method(Method::ListTargets),
            "/grpc.health.v1.Health/Check" => Self::HealthCheck,
            "/grpc.health.v1.Health/Watch" => Self::HealthWatch,
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Self::Reflection,
            _ => return None,
        })
    }
}

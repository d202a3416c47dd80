//! `grpc.reflection`, v1 and v1alpha, whose messages are the same on the wire. Not by tonic-reflection's server: that
//! one ends the stream where the protocol wants an `error_response`, finds enum values under `pkg.Enum.VALUE`, and
//! sends a file without its imports.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use futures_util::stream;
use http::{Request, Response};
use prost_reflect::{DescriptorPool, EnumDescriptor, FileDescriptor, MessageDescriptor, ServiceDescriptor};
use tonic::Code;
use tonic_reflection::pb::v1::{
    ErrorResponse, ExtensionNumberResponse, ExtensionRequest, FileDescriptorResponse, ListServiceResponse,
    ServerReflectionRequest, ServerReflectionResponse, ServiceResponse, server_reflection_request::MessageRequest,
    server_reflection_response::MessageResponse,
};

use crate::grpc::{Body, Failure, Messages, RequestBody, answers};

/// The reflection service over a pool of descriptors, all of whose services are listed.
#[derive(Debug, Clone)]
pub(crate) struct Reflection {
    descriptors: Arc<Descriptors>,
    max_request_size: usize,
}

/// A pool of descriptors, and an index of its names.
#[derive(Debug)]
struct Descriptors {
    pool: DescriptorPool,
    /// By the full name of a symbol, the file that declares the symbol.
    symbols: HashMap<String, FileDescriptor>,
    /// Full names, sorted.
    services: Vec<String>,
}

impl Reflection {
    /// Builds the service.
    pub(crate) fn new(pool: DescriptorPool, max_request_size: usize) -> Self {
        Self { descriptors: Arc::new(Descriptors::new(pool)), max_request_size }
    }

    /// Answers each message of a request by a message. What is not described is an `error_response`; a message that
    /// cannot be read ends the stream with the status that [`Messages::next`] reports.
    ///
    /// # Errors
    /// What [`Messages::new`] refuses.
    pub(crate) fn answer(&self, request: Request<RequestBody>) -> Result<Response<Body>, Failure> {
        let messages = Messages::<ServerReflectionRequest>::new(request, self.max_request_size)?;
        let descriptors = Arc::clone(&self.descriptors);
        Ok(answers(stream::unfold(Some(messages), move |messages| {
            let descriptors = Arc::clone(&descriptors);
            async move {
                let mut messages = messages?;
                match messages.next().await {
                    Ok(request) => Some((Ok(descriptors.answer(request?)), Some(messages))),
                    Err(status) => Some((Err(status), None)),
                }
            }
        })))
    }
}

impl Descriptors {
    fn new(pool: DescriptorPool) -> Self {
        let mut services: Vec<_> = pool.services().map(|service| service.full_name().to_owned()).collect();
        services.sort_unstable();
        let symbols = symbols(&pool).collect();
        Self { pool, symbols, services }
    }

    fn answer(&self, request: ServerReflectionRequest) -> ServerReflectionResponse {
        let answer = match &request.message_request {
            Some(MessageRequest::FileByFilename(name)) => {
                files(self.pool.get_file_by_name(name), || format!("file {name:?}"))
            }
            Some(MessageRequest::FileContainingSymbol(symbol)) => {
                files(self.symbols.get(symbol).cloned(), || format!("symbol {symbol:?}"))
            }
            Some(MessageRequest::FileContainingExtension(ExtensionRequest { containing_type, extension_number })) => {
                let number = u32::try_from(*extension_number).ok();
                let message = self.pool.get_message_by_name(containing_type);
                let extension = message.zip(number).and_then(|(message, number)| message.get_extension(number));
                files(extension.map(|extension| extension.parent_file()), || {
                    format!("extension {extension_number} of {containing_type:?}")
                })
            }
            Some(MessageRequest::AllExtensionNumbersOfType(name)) => self.extension_numbers(name),
            Some(MessageRequest::ListServices(_)) => {
                let services = self.services.iter().map(|name| ServiceResponse { name: name.clone() });
                MessageResponse::ListServicesResponse(ListServiceResponse { service: services.collect() })
            }
            None => error(
                Code::InvalidArgument,
                "the request asks nothing that this version of reflection knows".to_owned(),
            ),
        };
        ServerReflectionResponse {
            valid_host: request.host.clone(),
            original_request: Some(request),
            message_response: Some(answer),
        }
    }

    fn extension_numbers(&self, name: &str) -> MessageResponse {
        let Some(message) = self.pool.get_message_by_name(name) else { return unknown(&format!("message {name:?}")) };
        let numbers = message.extensions().filter_map(|extension| i32::try_from(extension.number()).ok());
        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
            base_type_name: name.to_owned(),
            extension_number: numbers.collect(),
        })
    }
}

/// Returns the file, then all files that it imports, directly or not, each once. `asked` names what was asked for if
/// there is no file.
fn files(file: Option<FileDescriptor>, asked: impl FnOnce() -> String) -> MessageResponse {
    let Some(file) = file else { return unknown(&asked()) };
    let mut seen = HashSet::new();
    let mut files = Vec::new();
    let mut queue = VecDeque::from([file]);
    while let Some(file) = queue.pop_front() {
        if seen.insert(file.name().to_owned()) {
            files.push(file.encode_to_vec());
            queue.extend(file.dependencies());
        }
    }
    MessageResponse::FileDescriptorResponse(FileDescriptorResponse { file_descriptor_proto: files })
}

/// Returns the answer that nothing of this name is described.
fn unknown(what: &str) -> MessageResponse {
    error(Code::NotFound, format!("the gateway knows no {what}"))
}

fn error(code: Code, error_message: String) -> MessageResponse {
    MessageResponse::ErrorResponse(ErrorResponse { error_code: code.into(), error_message })
}

/// Returns every full name of the pool with the file that declares it. By protobuf's scoping an enum's values are its
/// siblings: `pkg.VALUE`, not `pkg.Enum.VALUE`.
fn symbols(pool: &DescriptorPool) -> impl Iterator<Item = (String, FileDescriptor)> {
    let messages = pool.all_messages().flat_map(|message: MessageDescriptor| {
        let fields = message.fields().map(|field| field.full_name().to_owned());
        let oneofs = message.oneofs().map(|oneof| oneof.full_name().to_owned());
        let names: Vec<_> = fields.chain(oneofs).chain([message.full_name().to_owned()]).collect();
        declared(names, message.parent_file())
    });
    let enums = pool.all_enums().flat_map(|kind: EnumDescriptor| {
        let values = kind.values().map(|value| value.full_name().to_owned());
        declared(values.chain([kind.full_name().to_owned()]).collect(), kind.parent_file())
    });
    let services = pool.services().flat_map(|service: ServiceDescriptor| {
        let methods = service.methods().map(|method| method.full_name().to_owned());
        declared(methods.chain([service.full_name().to_owned()]).collect(), service.parent_file())
    });
    let extensions = pool.all_extensions().map(|extension| (extension.full_name().to_owned(), extension.parent_file()));
    messages.chain(enums).chain(services).chain(extensions)
}

fn declared(names: Vec<String>, file: FileDescriptor) -> impl Iterator<Item = (String, FileDescriptor)> {
    names.into_iter().map(move |name| (name, file.clone()))
}

#[cfg(test)]
mod tests;

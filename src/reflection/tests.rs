use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    MethodDescriptorProto, OneofDescriptorProto, ServiceDescriptorProto,
    descriptor_proto::ExtensionRange,
    field_descriptor_proto::{Label, Type},
};

use super::*;

#[expect(clippy::unnecessary_wraps, reason = "every name of a descriptor is optional")]
fn named(name: &str) -> Option<String> {
    Some(name.to_owned())
}

fn field(name: &str, number: i32) -> FieldDescriptorProto {
    let (label, r#type) = (Some(Label::Optional.into()), Some(Type::String.into()));
    FieldDescriptorProto { name: named(name), number: Some(number), label, r#type, ..Default::default() }
}

fn file(name: &str, imports: &[&str]) -> FileDescriptorProto {
    let dependency = imports.iter().map(|&name| name.to_owned()).collect();
    FileDescriptorProto { name: named(name), package: named("p"), dependency, ..Default::default() }
}

fn kind(name: &str, value: &str) -> EnumDescriptorProto {
    let value = EnumValueDescriptorProto { name: named(value), number: Some(0), ..Default::default() };
    EnumDescriptorProto { name: named(name), value: vec![value], ..Default::default() }
}

/// `one.proto` has a bit of everything; `two.proto` and `three.proto` extend its message, and `two.proto` imports both
/// others.
fn descriptors() -> Descriptors {
    let message = DescriptorProto {
        name: named("Message"),
        field: vec![field("member", 1), FieldDescriptorProto { oneof_index: Some(0), ..field("choice", 2) }],
        oneof_decl: vec![OneofDescriptorProto { name: named("either"), ..Default::default() }],
        nested_type: vec![DescriptorProto {
            name: named("Nested"),
            field: vec![field("deep", 1)],
            ..Default::default()
        }],
        enum_type: vec![kind("Inner", "INNER_VALUE")],
        extension_range: vec![ExtensionRange { start: Some(100), end: Some(200), options: None }],
        ..Default::default()
    };
    let method = MethodDescriptorProto {
        name: named("Call"),
        input_type: named(".p.Message"),
        output_type: named(".p.Message"),
        ..Default::default()
    };
    let one = FileDescriptorProto {
        message_type: vec![message],
        enum_type: vec![kind("Kind", "KIND_VALUE")],
        service: vec![ServiceDescriptorProto { name: named("Service"), method: vec![method], ..Default::default() }],
        ..file("one.proto", &[])
    };
    let extending = |name: &str, number| FieldDescriptorProto { extendee: named(".p.Message"), ..field(name, number) };
    let two = FileDescriptorProto {
        extension: vec![extending("second", 102)],
        ..file("two.proto", &["three.proto", "one.proto"])
    };
    let three = FileDescriptorProto { extension: vec![extending("third", 103)], ..file("three.proto", &["one.proto"]) };
    let mut pool = DescriptorPool::new();
    pool.add_file_descriptor_protos([one, two, three]).unwrap();
    Descriptors::new(pool)
}

/// The names of the files that are the answer, or the code of the error that is.
fn asked(request: MessageRequest) -> Result<Vec<String>, Code> {
    let request = ServerReflectionRequest { host: "here".to_owned(), message_request: Some(request) };
    let answer = descriptors().answer(request.clone());
    assert_eq!((&*answer.valid_host, answer.original_request), ("here", Some(request)));
    match answer.message_response.unwrap() {
        MessageResponse::FileDescriptorResponse(files) => Ok(files
            .file_descriptor_proto
            .iter()
            .map(|file| FileDescriptorProto::decode(&**file).unwrap().name().to_owned())
            .collect()),
        MessageResponse::ErrorResponse(error) => Err(Code::from_i32(error.error_code)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn every_symbol_is_found_by_its_own_name() {
    for symbol in [
        "p.Message",
        "p.Message.member",
        "p.Message.choice",
        "p.Message.either",
        "p.Message.Nested",
        "p.Message.Nested.deep",
        "p.Message.Inner",
        "p.Message.INNER_VALUE",
        "p.Kind",
        "p.KIND_VALUE",
        "p.Service",
        "p.Service.Call",
    ] {
        let found = asked(MessageRequest::FileContainingSymbol(symbol.to_owned()));
        assert_eq!(found, Ok(vec!["one.proto".to_owned()]), "{symbol}");
    }
    for symbol in ["", "p", "p.Nobody", "p.Kind.KIND_VALUE", ".p.Message", "Message"] {
        assert_eq!(asked(MessageRequest::FileContainingSymbol(symbol.to_owned())), Err(Code::NotFound), "{symbol:?}");
    }
}

#[test]
fn a_file_comes_first_and_with_all_that_it_imports_once() {
    let two = ["two.proto", "three.proto", "one.proto"].map(str::to_owned).to_vec();
    assert_eq!(asked(MessageRequest::FileByFilename("two.proto".to_owned())), Ok(two.clone()));
    assert_eq!(asked(MessageRequest::FileContainingSymbol("p.second".to_owned())), Ok(two));
    assert_eq!(asked(MessageRequest::FileByFilename("four.proto".to_owned())), Err(Code::NotFound));
}

#[test]
fn extensions_are_found_by_the_message_that_they_extend() {
    let extension = |containing_type: &str, extension_number| {
        let containing_type = containing_type.to_owned();
        asked(MessageRequest::FileContainingExtension(ExtensionRequest { containing_type, extension_number }))
    };
    assert_eq!(extension("p.Message", 103), Ok(["three.proto", "one.proto"].map(str::to_owned).to_vec()));
    for (name, number) in [("p.Message", 104), ("p.Message", -1), ("p.Nobody", 103), ("p.Kind", 0)] {
        assert_eq!(extension(name, number), Err(Code::NotFound), "{name} {number}");
    }
    let descriptors = descriptors();
    let numbers = |name: &str| match descriptors.extension_numbers(name) {
        MessageResponse::AllExtensionNumbersResponse(mut numbers) => {
            numbers.extension_number.sort_unstable();
            Ok((numbers.base_type_name, numbers.extension_number))
        }
        MessageResponse::ErrorResponse(error) => Err(Code::from_i32(error.error_code)),
        other => panic!("{other:?}"),
    };
    assert_eq!(numbers("p.Message"), Ok(("p.Message".to_owned(), vec![102, 103])));
    assert_eq!(numbers("p.Message.Nested"), Ok(("p.Message.Nested".to_owned(), vec![])));
    assert_eq!(numbers("p.Nobody"), Err(Code::NotFound));
}

#[test]
fn a_request_that_asks_nothing_is_an_error_and_not_the_end() {
    let answer = descriptors().answer(ServerReflectionRequest::default());
    let Some(MessageResponse::ErrorResponse(error)) = answer.message_response else { panic!("{answer:?}") };
    assert_eq!(error.error_code, i32::from(Code::InvalidArgument));
}

use prost_reflect::{DescriptorError, DescriptorPool};

/// Returns the descriptors of these encoded sets of files: each file once, after all that it imports, and under the
/// path by which the rest of the world imports it. tonic's crates ship `google/rpc/status.proto` as `status.proto`,
/// which clashes with whatever else a client knows by that name.
///
/// # Errors
/// One of the sets is none, or lacks a file that another one imports.
pub fn descriptors(sets: &[&[u8]]) -> Result<DescriptorPool, DescriptorError> {
    let mut all = DescriptorPool::new();
    for set in sets {
        let pool = DescriptorPool::decode(*set)?;
        let paths: Vec<_> =
            pool.files().map(|file| (file.name().to_owned(), path(file.name(), file.package_name()))).collect();
        let canonical = |name: &mut String| {
            if let Some((_, path)) = paths.iter().find(|(old, _)| old == name) {
                name.clone_from(path);
            }
        };
        let files = pool.file_descriptor_protos().cloned().map(|mut file| {
            file.name.as_mut().map(canonical);
            file.dependency.iter_mut().for_each(canonical);
            file
        });
        let new: Vec<_> = files.filter(|file| all.get_file_by_name(file.name()).is_none()).collect();
        all.add_file_descriptor_protos(new)?;
    }
    Ok(all)
}

/// Returns the path of a file below the folder of its package, if it has no folder: `reflection_v1.proto` of
/// `grpc.reflection.v1` is `grpc/reflection/v1/reflection.proto`.
fn path(name: &str, package: &str) -> String {
    let stem = name.strip_suffix(".proto").unwrap_or(name);
    if name.contains('/') || package.is_empty() {
        return name.to_owned();
    }
    let version = package.rsplit('.').next().unwrap_or_default();
    let stem = stem.strip_suffix(version).and_then(|stem| stem.strip_suffix('_')).unwrap_or(stem);
    format!("{}/{stem}.proto", package.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::FILE_DESCRIPTOR_SET;

    #[test]
    fn files_have_the_paths_by_which_everybody_imports_them() {
        let health = tonic_health::pb::FILE_DESCRIPTOR_SET;
        let reflection = tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET;
        let all =
            descriptors(&[FILE_DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET, health, reflection]).unwrap();
        let mut names: Vec<_> = all.files().map(|file| file.name().to_owned()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "google/protobuf/any.proto",
                "google/protobuf/duration.proto",
                "google/protobuf/timestamp.proto",
                "google/rpc/error_details.proto",
                "google/rpc/status.proto",
                "grpc/health/v1/health.proto",
                "grpc/reflection/v1alpha/reflection.proto",
                "ssm_gateway/v1/instance_information.proto",
                "ssm_gateway/v1/instance_information_service.proto",
                "ssm_gateway/v1/target_service.proto",
            ]
        );
    }

    #[test]
    fn each_file_comes_after_all_that_it_imports() {
        let all = descriptors(&[FILE_DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET]).unwrap();
        let names: Vec<_> = all.files().map(|file| file.name().to_owned()).collect();
        for (index, file) in all.files().enumerate() {
            assert!(
                file.dependencies().all(|import| names[..index].contains(&import.name().to_owned())),
                "{}",
                file.name()
            );
        }
    }

    #[test]
    fn imports_name_the_paths_that_files_were_given() {
        use prost::Message as _;
        use prost_types::{FileDescriptorProto, FileDescriptorSet};
        let file = |name: &str, imports: &[&str]| FileDescriptorProto {
            name: Some(name.to_owned()),
            package: Some("a.b".to_owned()),
            dependency: imports.iter().map(|&name| name.to_owned()).collect(),
            ..FileDescriptorProto::default()
        };
        let set = FileDescriptorSet { file: vec![file("one.proto", &[]), file("two.proto", &["one.proto"])] };
        let all = descriptors(&[&set.encode_to_vec()]).unwrap();
        let two = all.get_file_by_name("a/b/two.proto").unwrap();
        assert_eq!(two.file_descriptor_proto().dependency, ["a/b/one.proto"]);
    }
}

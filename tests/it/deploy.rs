//! What is in `deploy/` and at the top to put the gateway into service, checked by tools that know the formats.

use std::{fs, path::PathBuf, process::Command};

use crate::{
    program::SSM_GATEWAY,
    proofs::Secured,
    support::{root, run, tool},
};

fn deploy(path: &str) -> PathBuf {
    root().join("deploy").join(path)
}

#[test]
fn the_manifests_are_what_kubernetes_knows() {
    let manifests = fs::read_dir(deploy("kubernetes")).unwrap();
    let manifests: Vec<PathBuf> = manifests.map(|file| file.unwrap().path()).collect();
    assert!(manifests.len() >= 6);
    run(Command::new(tool("venv/bin/kubernetes-validate")).arg("--strict").args(manifests));
}

#[test]
fn the_compose_file_is_what_compose_knows() {
    let mut check = Command::new(tool("venv/bin/check-jsonschema"));
    run(check.args(["--builtin-schema", "vendor.compose-spec"]).arg(deploy("compose.yaml")));
}

#[test]
fn linters_find_no_fault_with_the_dockerfile_and_the_scripts() {
    run(Command::new(tool("venv/bin/hadolint")).arg(root().join("Dockerfile")));
    let scripts = [
        ".ci/run",
        "clients/python/generate",
        "scripts/deny",
        "scripts/fuzz",
        "scripts/test",
        "scripts/tools",
        "clients/test",
        "deploy/check",
    ];
    run(Command::new(tool("venv/bin/shellcheck")).current_dir(root()).args(scripts));
}

#[test]
fn the_configuration_of_the_manifests_is_sound_and_what_its_policies_let_it_do() {
    let mut check = Command::new(tool("venv/bin/python"));
    let config = run(check.arg(root().join("tests/peers/deploy_check.py")));
    let secured = Secured::new();
    let names = [("tls.crt", "cert.pem"), ("tls.key", "key.pem")];
    let config = names.iter().fold(config, |config, (theirs, ours)| {
        let (there, here) = (format!("/etc/ssm-gateway/tls/{theirs}"), secured.folder.path(ours).display().to_string());
        assert!(config.contains(&there));
        config.replace(&there, &here)
    });
    let config = secured.folder.write("gateway.toml", config);
    let mut check = Command::new(SSM_GATEWAY);
    // As the image has it.
    check.args(["check", "--listen", "0.0.0.0:50051", "--admin-listen", "0.0.0.0:9464", "--config"]).arg(config);
    run(&mut check);
}

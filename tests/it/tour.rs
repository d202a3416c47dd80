//! The tour in `docs/tour.md`, taken.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    program::SSM_GATEWAY,
    proofs::Folder,
    support::{root, simulated, tool},
};

/// Printed between what two commands print.
const END: &str = "\u{4}";

/// Whether the line is what the pattern says, where `…` is for anything.
fn is_like(line: &str, pattern: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('…') else { return line == pattern };
    let Some(mut left) = line.strip_prefix(start) else { return false };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let end = parts.pop().unwrap_or_default();
    for part in parts {
        let Some((_, after)) = left.split_once(part) else { return false };
        left = after;
    }
    left.ends_with(end)
}

/// Whether the lines are what the patterns say, where a line of `…` alone is for any number of them.
fn are_like(lines: &[&str], patterns: &[&str]) -> bool {
    match patterns.split_first() {
        None => lines.is_empty(),
        Some((&"…", rest)) => (0..=lines.len()).any(|skipped| are_like(&lines[skipped..], rest)),
        Some((pattern, rest)) => {
            lines.split_first().is_some_and(|(line, left)| is_like(line, pattern) && are_like(left, rest))
        }
    }
}

#[test]
fn patterns_are_for_what_they_say_alone() {
    assert!(is_like("age: 2", "age: …") && is_like("a b c", "a…c") && is_like("a", "a"));
    assert!(!is_like("age: 2", "date: …") && !is_like("a b c", "a…d") && !is_like("ab", "a"));
    assert!(are_like(&["a", "b", "c"], &["a", "…"]) && are_like(&["a", "b", "c"], &["…", "c"]));
    assert!(!are_like(&["a", "b"], &["a"]) && !are_like(&["a", "b"], &["…", "a"]) && !are_like(&[], &["a"]));
}

/// The commands of the document's consoles, each with what it is said to print.
fn commands(document: &str) -> Vec<(&str, Vec<&str>)> {
    let mut commands: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut is_console = false;
    for line in document.lines() {
        if line.starts_with("```") {
            is_console = line == "```console";
        } else if let Some(command) = line.strip_prefix("$ ").filter(|_| is_console) {
            commands.push((command, Vec::new()));
        } else if is_console {
            commands.last_mut().unwrap().1.push(line);
        }
    }
    commands
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tour_shows_what_a_terminal_shows() {
    let (gateway, _simulator) = simulated(1237).await;
    let (tour, folder) = (fs::read_to_string(root().join("docs/tour.md")).unwrap(), Folder::new());
    let tour = tour.replace("127.0.0.1:50051", &gateway.addr.to_string());
    let commands = commands(&tour);
    let script =
        commands.iter().map(|(command, _)| format!("{command}\nprintf '{END}'\n")).collect::<Vec<_>>().concat();
    let path = [Path::new(SSM_GATEWAY).parent().unwrap(), &tool("bin"), &tool("venv/bin")]
        .map(|path| path.display().to_string());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec 2>&1\n{script}")]).current_dir(folder.path("."));
    shell.env("PATH", format!("{}:{}", path.join(":"), std::env::var("PATH").unwrap()));
    let output = shell.stdin(Stdio::null()).output().unwrap();
    let output = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = output.split_terminator(END).collect();
    assert_eq!(printed.len(), commands.len(), "{output}");
    for ((command, expected), printed) in commands.iter().zip(printed) {
        assert!(are_like(&printed.lines().collect::<Vec<_>>(), expected), "{command}\n{printed}");
    }
    assert!(commands.len() > 15);
}

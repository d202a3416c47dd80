//! Removes values that may be secrets from clap's errors.

use std::{
    env,
    ffi::{OsStr, OsString},
};

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
};

use crate::display::Shown;

/// Returns the error without a value that may be a secret: any value of a variable, because nobody typed it, and any
/// value that is not short and plain. The error then names the variable or the flag, and describes the expected value.
pub(super) fn without_secret(error: Error, command: &mut Command, words: &[OsString]) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let word = match error.kind() {
        ErrorKind::InvalidSubcommand => text(ContextKind::InvalidSubcommand),
        ErrorKind::UnknownArgument => text(ContextKind::InvalidArg),
        _ => None,
    };
    if word.is_some_and(|word| may_be_secret(&word)) {
        return command.error(error.kind(), "an argument is neither a command nor an option");
    }
    let (Some(flag), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return error;
    };
    let called = words.get(1).and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let Some(command) = command.find_subcommand_mut(&called) else { return error };
    let arg = command.get_arguments().find(|arg| arg.to_string() == flag);
    let is_given = |name: &&OsStr| env::var_os(name).is_some_and(|given| given.to_string_lossy() == value);
    let variable = arg.and_then(clap::Arg::get_env).filter(is_given).map(|name| name.to_string_lossy().into_owned());
    if variable.is_none() && !may_be_secret(&value) {
        return error;
    }
    let place = variable.map_or_else(|| flag.clone(), |name| format!("{name} ({flag})"));
    let meaning = arg.and_then(clap::Arg::get_help).map(ToString::to_string).unwrap_or_default();
    command.error(error.kind(), format!("the value of {place} is invalid. Expected: {meaning}"))
}

/// Returns whether a text may be a secret: it is not short and plain, or is a phrase or a URL with a user.
fn may_be_secret(text: &str) -> bool {
    !Shown(text).is_shown() || text.contains(['@', ' '])
}

//! What clap says of a command line, without values that may be secrets.

use std::{
    env,
    ffi::{OsStr, OsString},
};

use clap::{
    Command, Error,
    error::{ContextKind, ContextValue},
};

use crate::model::Shown;

/// Removes the value from an error if it may be a secret: it came from a variable, whose value nobody sees as it is set, or it is
/// not short and plain, or may have a user in it. The error then names the variable or the flag, and says what its value means.
pub(super) fn without_secret(error: Error, command: &mut Command, words: &[OsString]) -> Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (Some(flag), Some(value)) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue)) else {
        return error;
    };
    let called = words.get(1).and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let Some(command) = command.find_subcommand_mut(&called) else { return error };
    let arg = command.get_arguments().find(|arg| arg.to_string() == flag);
    let is_given = |name: &&OsStr| env::var_os(name).is_some_and(|given| given.to_string_lossy() == value);
    let variable = arg.and_then(clap::Arg::get_env).filter(is_given).map(|name| name.to_string_lossy().into_owned());
    if variable.is_none() && Shown(&value).is_shown() && !value.contains('@') {
        return error;
    }
    let place = variable.map_or_else(|| flag.clone(), |name| format!("{name} ({flag})"));
    let meaning = arg.and_then(clap::Arg::get_help).map(ToString::to_string).unwrap_or_default();
    command.error(error.kind(), format!("the value of {place} is not valid. It means: {meaning}"))
}

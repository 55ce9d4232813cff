//! Exit codes, and which error gives which. Nothing else ends the process.

use std::{fmt::Write as _, io, process::ExitCode};

use crate::{api::RefusalKind, client::ClientError, edge::socket::SocketError};

/// How a command ended: 0, 1, 2 as everywhere, finer ones from `sysexits.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Failed, for a reason without a code of its own.
    Failed = 1,
    /// The command line is wrong; nothing was attempted.
    Usage = 2,
    /// `EX_DATAERR`: an edit whose result would not be a valid configuration.
    Data = 65,
    /// `EX_NOINPUT`: a file that cannot be read.
    NoInput = 66,
    /// `EX_UNAVAILABLE`: no daemon listens, or it cannot answer now.
    Unavailable = 69,
    /// `EX_TEMPFAIL`: what was waited for did not come in time.
    Late = 75,
    /// `EX_NOPERM`: not allowed.
    Permission = 77,
    /// `EX_CONFIG`: the configuration file is not valid.
    Config = 78,
    /// As shells have it: interrupted by the keyboard.
    Interrupted = 130,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: &[Self] = &[
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::Data,
        Self::NoInput,
        Self::Unavailable,
        Self::Late,
        Self::Permission,
        Self::Config,
        Self::Interrupted,
    ];

    /// What it means, for `--help`.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::Failed => "failed, or no such service, pool or backend",
            Self::Usage => "wrong command line",
            Self::Data => "edit refused: the result would not be valid",
            Self::NoInput => "a file cannot be read",
            Self::Unavailable => "no daemon listens, or it cannot answer now",
            Self::Late => "what was waited for did not come in time",
            Self::Permission => "not allowed",
            Self::Config => "the configuration file is not valid",
            Self::Interrupted => "interrupted",
        }
    }

    /// The code for an error: that of the outermost cause which has one.
    pub fn of(error: &anyhow::Error) -> Self {
        error.chain().find_map(Self::of_cause).unwrap_or(Self::Failed)
    }

    fn of_cause(cause: &(dyn std::error::Error + 'static)) -> Option<Self> {
        if let Some(failure) = cause.downcast_ref::<Failure>() {
            return Some(failure.exit);
        }
        if let Some(error) = cause.downcast_ref::<ClientError>() {
            return match error {
                ClientError::NoDaemon { .. }
                | ClientError::Broken { .. }
                | ClientError::Silent { .. }
                | ClientError::Unavailable { .. } => Some(Self::Unavailable),
                ClientError::Denied { .. } => Some(Self::Permission),
                ClientError::Refused { refusal } if refusal.kind == RefusalKind::Invalid => Some(Self::Data),
                ClientError::Refused { .. } | ClientError::Strange { .. } => Some(Self::Failed),
                ClientError::Connect { .. } => None,
            };
        }
        if let Some(SocketError::Busy { .. }) = cause.downcast_ref() {
            return Some(Self::Unavailable);
        }
        let error = cause.downcast_ref::<io::Error>()?;
        (error.kind() == io::ErrorKind::PermissionDenied).then_some(Self::Permission)
    }

    /// The list for `--help`.
    pub fn help() -> String {
        Self::ALL.iter().fold("Exit status:\n".to_owned(), |mut text, &exit| {
            // Writing to a String cannot fail.
            writeln!(text, "  {:<3} {}", exit as u8, exit.text()).ok();
            text
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that knows its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// What is told to people.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Refusal;
    use anyhow::Context as _;

    fn refused(kind: RefusalKind) -> anyhow::Error {
        ClientError::Refused { refusal: Refusal { kind, errors: vec!["no".to_owned()] } }.into()
    }

    #[test]
    fn errors_have_their_codes_also_deep_down() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let cases: Vec<(anyhow::Error, Exit)> = vec![
            (anyhow::anyhow!("something"), Exit::Failed),
            (ClientError::NoDaemon { path: "/x".into() }.into(), Exit::Unavailable),
            (ClientError::Denied { path: "/x".into(), owner: None }.into(), Exit::Permission),
            (refused(RefusalKind::Invalid), Exit::Data),
            (refused(RefusalKind::NotFound), Exit::Failed),
            (refused(RefusalKind::Conflict), Exit::Failed),
            (refused(RefusalKind::Failed), Exit::Failed),
            (Err::<(), _>(denied()).context("open").unwrap_err(), Exit::Permission),
            (
                SocketError::Io { attempt: "bind", path: "/x".into(), source: denied() }.into(),
                Exit::Permission,
            ),
            (Failure { exit: Exit::Config, message: String::new() }.into(), Exit::Config),
        ];
        for (error, want) in cases {
            assert_eq!(Exit::of(&error), want, "{error:?}");
        }
    }

    #[test]
    fn help_lists_every_code() {
        assert_eq!(Exit::help().lines().count(), Exit::ALL.len() + 1);
    }
}

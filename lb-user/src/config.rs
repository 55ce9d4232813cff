//! The configuration file: from its text to [`Desired`](crate::model::service::Desired) or to all of its
//! errors, and edits of its text that keep comments and formatting. Texts in, values out: no files, no clock.

mod edit;
mod error;
pub mod keys;
mod parse;
mod reader;
mod splice;
#[cfg(test)]
mod tests;
mod value;

pub use edit::{EditError, edit};
pub use error::{AddressProblem, ConfigError, ConfigErrors, Problem};
pub use parse::{files_named, parse};
pub use value::{duration_text, parse_duration};

/// A complete example of a configuration, with comments.
pub const fn example() -> &'static str {
    include_str!("config/example.toml")
}

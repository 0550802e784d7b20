//! `sidegate identity`: entries and authorities of a running instance.

mod authority;
mod bundle;
mod entry;

use super::block_on;
use crate::admin::AdminClient;
use crate::arguments::{
    BundleCommand, EntryCommand, IdentityCommand, OutputFormat, StateArguments,
};
use crate::failure::Failure;
use crate::output;

/// Asks the instance, and prints what it says.
pub(super) fn execute(command: &IdentityCommand) -> Result<(), Failure> {
    block_on(async {
        match command {
            IdentityCommand::Entry(EntryCommand::Create(arguments)) => {
                entry::create(arguments).await
            }
            IdentityCommand::Entry(EntryCommand::List(arguments)) => entry::list(arguments).await,
            IdentityCommand::Entry(EntryCommand::Show(arguments)) => entry::show(arguments).await,
            IdentityCommand::Entry(EntryCommand::Delete(arguments)) => {
                entry::delete(arguments).await
            }
            IdentityCommand::Bundle(BundleCommand::Show(arguments)) => {
                bundle::show(arguments).await
            }
            IdentityCommand::Bundle(BundleCommand::List(arguments)) => {
                bundle::list(arguments).await
            }
            IdentityCommand::Bundle(BundleCommand::Set(arguments)) => bundle::set(arguments).await,
            IdentityCommand::Bundle(BundleCommand::Delete(arguments)) => {
                bundle::delete(arguments).await
            }
            IdentityCommand::Authorities(arguments) => authority::list(arguments).await,
            IdentityCommand::Rotate(arguments) => authority::rotate(arguments).await,
            IdentityCommand::Taint(arguments) => {
                authority::give_up(arguments, "taint", "tainted").await
            }
            IdentityCommand::Revoke(arguments) => {
                authority::give_up(arguments, "revoke", "revoked").await
            }
        }
    })
}

/// The instance that the arguments name.
fn instance(arguments: &StateArguments) -> AdminClient {
    AdminClient::new(&arguments.state)
}

/// Prints a document, for people or as it is.
fn print<T: serde::Serialize>(
    arguments: &StateArguments,
    document: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<(), Failure> {
    match arguments.output {
        OutputFormat::Json => output::print_json(document),
        OutputFormat::Text => output::print(&text(document)),
    }
}

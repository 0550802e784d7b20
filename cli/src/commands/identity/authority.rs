//! `sidegate identity authorities`, `rotate`, `taint` and `revoke`.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use sidegate_identity::embedded::Authorities;
use sidegate_identity::slots::AuthorityStatus;

use super::{instance, print};
use crate::admin::{Chosen, Rotate, Selected, rfc3339};
use crate::arguments::{AuthorityArguments, AuthorityName, RotateArguments, StateArguments};
use crate::failure::Failure;

/// Prints the authorities and their phases.
pub(super) async fn list(arguments: &StateArguments) -> Result<(), Failure> {
    let authorities: Authorities = instance(arguments).get("/v1/authorities").await?;
    print(arguments, &authorities, describe)
}

/// Puts a new authority in the active one's place, and prints all.
pub(super) async fn rotate(arguments: &RotateArguments) -> Result<(), Failure> {
    let prepare_only = arguments.prepare_only;
    let admin = instance(&arguments.instance);
    let path = path(arguments.authority, "rotate");
    let authorities: Authorities = admin.post(&path, &Rotate { prepare_only }).await?;
    print(&arguments.instance, &authorities, describe)
}

/// Taints or revokes an authority, and prints which.
pub(super) async fn give_up(
    arguments: &AuthorityArguments,
    action: &str,
    done: &str,
) -> Result<(), Failure> {
    let id = arguments.authority_id.clone();
    let admin = instance(&arguments.instance);
    let path = path(arguments.authority, action);
    let chosen: Chosen = admin.post(&path, &Selected { id }).await?;
    print(&arguments.instance, &chosen, |chosen| {
        format!("{done} {}\n", chosen.id)
    })
}

fn path(authority: AuthorityName, action: &str) -> String {
    let kind = match authority {
        AuthorityName::X509 => "x509",
        AuthorityName::Jwt => "jwt",
    };
    format!("/v1/authorities/{kind}/{action}")
}

fn describe(authorities: &Authorities) -> String {
    let mut text = String::new();
    for (kind, all) in [("x509", &authorities.x509), ("jwt", &authorities.jwt)] {
        for AuthorityStatus {
            id,
            phase,
            not_before,
            not_after,
        } in all
        {
            let moment =
                |seconds: &u64| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(*seconds));
            let (from, to) = (moment(not_before), moment(not_after));
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{kind:<4}  {phase:<8}  {id:<40}  {from} to {to}");
        }
    }
    text
}

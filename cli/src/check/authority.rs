//! Authorities: those of a running instance, and those that a stopped one has kept.

use sidegate_identity::embedded::AuthorityKind;
use sidegate_identity::slots::{AuthorityStatus, Phase};

use super::{Check, span};

const DAY: u64 = 24 * 3600;

/// A brought authority is to be replaced by hand: this long before its end, or, if its whole life is
/// short, in the last sixth of that.
const NOTICE: u64 = 30 * DAY;

impl Check {
    /// That an authority is valid.
    pub(crate) fn authority(kind: AuthorityKind, detail: impl Into<String>) -> Self {
        match kind {
            AuthorityKind::X509 => Self::ok("x509-authority", "X.509 authority is valid", detail),
            AuthorityKind::Jwt => Self::ok("jwt-authority", "JWT authority is valid", detail),
        }
    }
}

/// The authorities that sign now. `brought` is the certificate that was brought along.
pub(crate) fn authority(
    kind: AuthorityKind,
    all: &[AuthorityStatus],
    brought: Option<&str>,
    now: u64,
) -> Vec<Check> {
    let active = all.iter().find(|one| one.phase == Phase::Active);
    let active = active.filter(|one| now < one.not_after);
    let row = match active {
        None => Check::authority(kind, brought.unwrap_or_default())
            .error("SG0184", "none is valid: nothing new can be signed")
            .hint(match brought {
                Some(path) => format!("renew {path} and restart"),
                None => "the log says why no other is made".to_owned(),
            }),
        Some(active) => {
            let left = active.not_after - now;
            let succeeded = all.iter().any(|one| one.phase == Phase::Prepared);
            let sixth = active.not_after.saturating_sub(active.not_before) / 6;
            let notice = brought.map_or(sixth, |_| sixth.min(NOTICE));
            let row = Check::authority(kind, format!("{}, for {}", active.id, span(left)));
            if left > notice || succeeded {
                row
            } else {
                let row = row.warning("SG0182", "it ends soon and has no successor");
                row.hint(match brought {
                    Some(path) => format!("renew {path} and restart"),
                    None => "the log says why none is made".to_owned(),
                })
            }
        }
    };
    std::iter::once(row).chain(tainted(kind, all)).collect()
}

/// The authorities in the files of an instance that is to be started.
pub(crate) fn kept_authority(kind: AuthorityKind, all: &[AuthorityStatus], now: u64) -> Vec<Check> {
    let end = all.iter().map(|one| one.not_after).max();
    let row = match (kind, end) {
        (_, None) => Check::authority(kind, "none yet: it will be made"),
        (_, Some(end)) if now < end => Check::authority(kind, format!("for {}", span(end - now))),
        // They live for a day, and peers ask for them all the time.
        (AuthorityKind::Jwt, Some(_)) => Check::authority(kind, "expired: it will be replaced"),
        (AuthorityKind::X509, Some(end)) => Check::authority(kind, "expired: it will be replaced")
            .warning("SG0119", format!("it expired {} ago", span(now - end)))
            .hint("give all peers the new bundle"),
    };
    std::iter::once(row).chain(tainted(kind, all)).collect()
}

fn tainted(kind: AuthorityKind, all: &[AuthorityStatus]) -> impl Iterator<Item = Check> {
    let (id, name) = match kind {
        AuthorityKind::X509 => ("x509-tainted", "x509"),
        AuthorityKind::Jwt => ("jwt-tainted", "jwt"),
    };
    let tainted = all.iter().filter(|one| one.phase == Phase::Tainted);
    tainted.map(move |one| {
        Check::ok(id, "tainted authorities are revoked", &one.id)
            .warning("SG0183", "peers still accept what it has signed")
            .hint(format!(
                "once every workload has a new SVID: sidegate identity revoke {name}"
            ))
    })
}

//! An authority that cannot be renewed, because its file cannot be written.

use std::fs;

use sidegate_tests::{Sidegate, until};
use time::Duration;

use super::{check, check_state, problem, problems};
use crate::faults::old_state::{Age, age_jwt_keys, authorities};
use crate::support::{Configuration, admin, counter, folder, logged};

/// Which file cannot be written, and what it is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    Root,
    JwtKeys,
}

#[test]
fn what_cannot_be_renewed_is_warned_of_until_it_can_be() {
    for kept in [Kept::Root, Kept::JwtKeys] {
        let folder = folder();
        let config = Configuration::new().write(folder.path());
        drop(Sidegate::run(&config));
        let state = folder.path().join("state");
        let file = match kept {
            Kept::Root => "authority.pem",
            Kept::JwtKeys => "jwt_keys.json",
        };
        let file = state.join(file);
        match kept {
            Kept::Root => fs::write(&file, authorities(&[(root(), intermediate())])).unwrap(),
            Kept::JwtKeys => age_jwt_keys(&file, Duration::hours(12) - Duration::seconds(6)),
        }
        let gate = Sidegate::run(&config);
        let (code, document) = check_state(&state, &["--strict"]);
        assert_eq!((code, problems(&document)), (Some(0), Vec::new()));
        let before = fs::read(&file).unwrap();

        // A directory is in the way of the new file.
        let new = file.with_added_extension("new");
        fs::create_dir(&new).unwrap();
        until(&format!("a warning of {kept:?}"), || {
            let (_, document) = check_state(&state, &[]);
            (problems(&document) == problem("renewal", "SG0149")).then_some(())
        });
        assert_eq!(check_state(&state, &[]).0, Some(0));
        assert_eq!(check_state(&state, &["--strict"]).0, Some(1));
        let shown = check(&["--state", state.to_str().unwrap()]).stdout;
        let mut lines = shown.lines().skip_while(|line| !line.starts_with('‼'));
        let warned = Vec::from_iter(lines.by_ref().take(2)).concat();
        assert!(warned.contains("SG0149"), "{shown}");
        let (status, text) = admin(&gate, "/readyz").unwrap();
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("warning:"), "{text}");
        logged(&gate, &["ERROR", "SG01"]);
        let failures = counter(&gate, "sidegate_authority_renewal_failures_total", &[]);
        assert!(failures > 0.5, "{failures}");
        assert_eq!(fs::read(&file).unwrap(), before);

        fs::remove_dir(&new).unwrap();
        until("all is well again", || {
            let (code, document) = check_state(&state, &["--strict"]);
            (code == Some(0) && problems(&document).is_empty()).then_some(())
        });
        assert_ne!(fs::read(&file).unwrap(), before);
        let (status, text) = admin(&gate, "/readyz").unwrap();
        assert_eq!(status, 200, "{text}");
        assert!(!text.contains("warning:"), "{text}");
    }
}

/// It has long to live.
fn root() -> Age {
    age(300, 360_000)
}

/// Half of its life is over soon.
fn intermediate() -> Age {
    age(3600, 3612)
}

/// In seconds.
fn age(since: i64, left: i64) -> Age {
    Age {
        since: Duration::seconds(since),
        left: Duration::seconds(left),
    }
}

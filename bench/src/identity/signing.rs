//! X.509-SVIDs signed by the embedded CA, beside the cryptography alone.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Result, anyhow};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use sidegate_identity::TrustDomain;
use sidegate_identity::authority::{EmbeddedAuthority, Lifetimes};
use sidegate_identity::clock::{Clock, SystemClock};
use sidegate_identity::entry::{Entry, EntryRequest};

use crate::clock::{self, median};
use crate::report::{Goal, Report, say};

const GOAL: f64 = 15_000.0;

/// Both are measured in turns, so that a machine that becomes slower is so for both.
const ROUNDS: usize = 7;

/// How long a round takes.
const ROUND: Duration = Duration::from_millis(400);

/// How much of a certificate is signed, in bytes.
const TO_BE_SIGNED: usize = 400;

pub(super) fn measure(report: &mut Report) -> Result<()> {
    say("signing: X.509-SVIDs and the floor in turns");
    let folder = tempfile::tempdir()?;
    let trust_domain = TrustDomain::new("bench.local")?;
    let now = SystemClock.now();
    let lifetimes = Lifetimes {
        root: Duration::from_secs(365 * 24 * 3600),
        svid: Duration::from_secs(3600),
    };
    let path = folder.path().join("authority.pem");
    let authority = EmbeddedAuthority::open(path, trust_domain.clone(), lifetimes, now)?;
    let request = EntryRequest {
        spiffe_id: "spiffe://bench.local/ns/default/sa/web".to_owned(),
        selectors: vec!["unix:uid:1000".to_owned()],
        ..EntryRequest::default()
    };
    let entry = Entry::new(request, &trust_domain)?;
    let signer = generate()?;

    let (mut minted, mut floor) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        floor.push(time_of_each(|| {
            let key = generate()?;
            black_box(sign(&signer, key.public_key())?);
            Ok(())
        })?);
        minted.push(time_of_each(|| {
            black_box(authority.mint(&entry, now)?);
            Ok(())
        })?);
    }
    let (minted, floor) = (median(minted), median(floor));
    report.judge(
        "X.509-SVIDs signed, one core",
        1.0 / minted,
        "/s",
        Goal::AtLeast(GOAL),
    );
    report.add(
        "X.509-SVIDs, floor: a P-256 key and a signature",
        1.0 / floor,
        "/s",
    );
    report.add("X.509-SVIDs, times the floor", minted / floor, "");
    Ok(())
}

/// Seconds of this thread for each run of the work.
fn time_of_each(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let began = clock::thread()?;
    let mut runs = 0.0;
    loop {
        for _ in 0..100 {
            work()?;
            runs += 1.0;
        }
        let spent = clock::thread()?.saturating_sub(began);
        if spent >= ROUND {
            return Ok(spent.as_secs_f64() / runs);
        }
    }
}

fn generate() -> Result<EcdsaKeyPair> {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(|_| anyhow!("no key is made"))
}

/// Signs as much as a certificate has, the public key in it.
fn sign(signer: &EcdsaKeyPair, public_key: impl AsRef<[u8]>) -> Result<impl AsRef<[u8]>> {
    let mut message = [0; TO_BE_SIGNED];
    for (byte, key) in message.iter_mut().zip(public_key.as_ref()) {
        *byte = *key;
    }
    signer
        .sign(&SystemRandom::new(), &message)
        .map_err(|_| anyhow!("nothing is signed"))
}

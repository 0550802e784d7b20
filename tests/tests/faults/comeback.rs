//! A server that is killed and comes back, under clients that stay.

use std::sync::Arc;

use nix::sys::signal::Signal;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use sidegate_tests::{Sidegate, until};
use spiffe::{X509Context, X509Svid};

use super::load::greet;
use super::setup::Setup;
use crate::rotation::client::Client;
use crate::support::{address, folder};
use crate::workload_api::serial;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_outlives_a_kill_and_its_new_svids_are_verified_by_the_old_bundle() {
    let folder = folder();
    let config = Setup::with_hello().write(folder.path());
    let gate = Sidegate::run(&config);
    let server = address(&gate).parse().expect("an address");
    let mut client = Client::new(&gate.ready.workload_socket, server).await;
    let old = client.source.x509_context().expect("a context");
    greet(&client, &old, 0).await.expect("it is served before");

    gate.process.signal(Signal::SIGKILL);
    gate.process.wait();
    // Without its server the client keeps what it has.
    assert_eq!(
        leaf(&client.source.x509_context().expect("a context")),
        leaf(&old)
    );

    let gate = Sidegate::run(&config);
    let new = until("an SVID of the new server", || {
        let context = client.source.x509_context().expect("a context");
        (leaf(&context) != leaf(&old)).then_some(context)
    });
    verify(new.default_svid().expect("an SVID"), &old);

    // Both are served by it, each trusting what it trusted.
    client.server = address(&gate).parse().expect("an address");
    greet(&client, &old, 0)
        .await
        .expect("the old SVID is served");
    greet(&client, &new, 0)
        .await
        .expect("the new SVID is served");
}

fn leaf(context: &Arc<X509Context>) -> String {
    let svid = context.default_svid().expect("an SVID");
    serial(svid.leaf().as_bytes())
}

/// An SVID is verified by the roots of a context.
fn verify(svid: &X509Svid, context: &X509Context) {
    let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain());
    let mut roots = RootCertStore::empty();
    for root in bundle.expect("a bundle").authorities() {
        let root = CertificateDer::from(root.as_bytes().to_vec());
        roots.add(root).expect("a root");
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build();
    let chain = svid.cert_chain().iter();
    let chain: Vec<_> = chain
        .map(|certificate| CertificateDer::from(certificate.as_bytes()))
        .collect();
    let (leaf, intermediates) = chain.split_first().expect("a leaf");
    let verified =
        verifier
            .expect("a verifier")
            .verify_client_cert(leaf, intermediates, UnixTime::now());
    verified.expect("it is verified");
}

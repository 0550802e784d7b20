//! An Envoy that lets in peers of other trust domains, by `ALL` and by a trust domain's name.

use std::path::Path;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use sidegate_tests::{Sidegate, Tool, skip, tool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{interval, timeout};

use super::{Foreign, OTHER};
use crate::envoy::{Bootstrap, Envoy};
use crate::support::{Client, Configuration, Operator, folder, own_uid, patiently, program};

/// A listener with the SVID of the Envoy, which takes the peers that the secret NAME verifies.
const SERVER: &str = r#"    - name: NAME
      address:
        socket_address: { address: 127.0.0.1, port_value: 0 }
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificate_sds_secret_configs:
                  - name: default
                    sds_config: &NUMBER
                      resource_api_version: V3
                      api_config_source:
                        api_type: GRPC
                        transport_api_version: V3
                        grpc_services:
                          - envoy_grpc: { cluster_name: workload_api }
                validation_context_sds_secret_config:
                  name: "NAME"
                  sds_config: *NUMBER
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: server
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: "/" }
                          direct_response: { status: 200 }
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
"#;

const FOREIGN_NAME: &str = "spiffe://other.example";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_envoy_takes_foreign_peers_by_either_name_for_as_long_as_their_bundle_is_set() {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip("an_envoy_takes_foreign_peers", Tool::Envoy);
    };
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let (gate, own) = start(folder.path(), &binary);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    let servers = ["ALL", FOREIGN_NAME].iter().enumerate();
    let servers = servers.map(|(number, name)| {
        let number = format!("server_{number}");
        SERVER.replace("NAME", name).replace("NUMBER", &number)
    });
    let bootstrap = Bootstrap::example(&gate).replace(
        "\n  clusters:\n    # Sidegate's",
        &format!(
            "\n{}\n  clusters:\n    # Sidegate's",
            servers.collect::<String>()
        ),
    );
    let (_envoy, all, by_name) = tokio::task::block_in_place(|| {
        let envoy = Envoy::start(&binary, &bootstrap);
        let [all, by_name] = ["ALL", FOREIGN_NAME].map(|name| envoy.listener(name));
        (envoy, all, by_name)
    });
    let theirs = foreign.client(&all, &folder.path().join("demo/bundle.pem"));

    for round in 0..2 {
        reaches(&theirs, true).await;
        reaches(&theirs.clone().at(&by_name), true).await;
        reaches(&own.clone().at(&all), true).await;
        reaches(&own.clone().at(&by_name), false).await;
        if round == 0 {
            tokio::task::block_in_place(|| foreign.is_forgotten_by(&operator));
            reaches(&theirs, false).await;
            reaches(&theirs.clone().at(&by_name), false).await;
            reaches(&own.clone().at(&all), true).await;
            tokio::task::block_in_place(|| foreign.is_known_to(&operator));
        }
    }
}

/// Waits until a client is let in, or until it is not.
async fn reaches(client: &Client, is_let_in: bool) {
    let mut ticks = interval(Duration::from_millis(20));
    let reached = timeout(Duration::from_secs(20), async {
        while is_answered(client).await != is_let_in {
            ticks.tick().await;
        }
    });
    let what = format!("{} lets it in: {is_let_in}", client.address);
    reached.await.expect(&what);
}

async fn is_answered(client: &Client) -> bool {
    let config = client.tls(aws_lc_rs::default_provider());
    let Ok(mut stream) = client.connect(config).await else {
        return false;
    };
    let request = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    // In TLS 1.3 a client is done before the server has judged its certificate.
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    answer.starts_with(b"HTTP/1.1 200 ")
}

/// Behind the listener is the probe; the Envoy alone is the demo client, whose entry federates, and
/// a client of ours has its files.
fn start(folder: &Path, envoy: &Path) -> (Sidegate, Client) {
    let mut configuration = Configuration::new();
    let uid = format!("selectors = [\"{}\"]\n", own_uid());
    let lines = format!(
        "selectors = [\"{}\"]\ndns_names = [\"localhost\"]\nfederates_with = [\"{OTHER}\"]\n",
        program(envoy)
    );
    configuration.entries = configuration.entries.replace(&uid, &lines);
    configuration.start(folder)
}

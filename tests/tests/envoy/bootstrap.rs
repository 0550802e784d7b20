//! The bootstrap that tests start Envoy with: the example, with other paths and ports.

use std::fs;

use sidegate_tests::{Sidegate, root};

use crate::support::address;

/// A bootstrap, as YAML.
#[derive(Debug, Clone)]
pub(crate) struct Bootstrap(String);

impl Bootstrap {
    /// `examples/envoy-bootstrap.yaml` for a running `sidegate`: exactly what its comments tell a
    /// person to edit is replaced. Envoy's own ports are chosen by the system.
    pub(crate) fn example(gate: &Sidegate) -> Self {
        let text = fs::read_to_string(root().join("examples/envoy-bootstrap.yaml"))
            .expect("the example is there");
        let (_, port) = address(gate).rsplit_once(':').expect("it has a port");
        let socket = gate.ready.workload_socket.trim_start_matches("unix://");
        Self(text)
            .replace(
                "path: \".sidegate/workload.sock\"",
                &format!("path: {socket}"),
            )
            .replace("port_value: 8443", &format!("port_value: {port}"))
            .replace("port_value: 10000", "port_value: 0")
            .replace("port_value: 9901", "port_value: 0")
    }

    /// One of the test's own making.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The same with another text in one place.
    pub(crate) fn replace(self, old: &str, new: &str) -> Self {
        assert_eq!(self.0.matches(old).count(), 1, "`{old}` is in one place");
        Self(self.0.replace(old, new))
    }

    /// The same with one more cluster, which no route leads to: at `clusters`' indentation.
    pub(crate) fn with_cluster(self, cluster: &str) -> Self {
        Self(format!("{}{cluster}", self.0))
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}

//! The servers.

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Running, Tool, skip, tool, until};
use tempfile::TempDir;
use tokio::net::UnixStream;

use super::peer;
use crate::support::{folder, write};

/// A server that tells what it sees.
pub(super) struct Origin {
    pub(super) name: &'static str,
    /// As the upstream of a listener.
    pub(super) url: String,
    process: Running,
    _folder: TempDir,
}

impl Origin {
    /// Those that this machine has, over HTTP/1.1.
    pub(super) async fn all(test: &str) -> Vec<Self> {
        let mut all = Vec::new();
        for (name, needed) in [
            ("nginx", Tool::Nginx),
            ("Go", Tool::GoOrigin),
            ("Node", Tool::Node),
            ("Java", Tool::Java),
            ("gunicorn", Tool::Python),
            ("uvicorn", Tool::Python),
        ] {
            let Some(program) = tool(needed) else {
                skip(&format!("{test} ({name})"), needed);
                continue;
            };
            all.push(match name {
                "nginx" => Self::nginx(name, &program).await,
                "Go" => Self::on_a_port(name, "http", &mut Command::new(program)),
                "Node" => {
                    let mut command = Command::new(program);
                    command.arg(peer("origins/origin.mjs")).arg("http1");
                    Self::on_a_port(name, "http", &mut command)
                }
                "Java" => {
                    let mut command = Command::new(program);
                    command.arg(peer("origins/Origin.java"));
                    Self::on_a_port(name, "http", &mut command)
                }
                _ => Self::python(name, &program).await,
            });
        }
        all
    }

    /// Those that speak HTTP/2 without TLS.
    pub(super) fn all_http2(test: &str) -> Vec<Self> {
        let mut all = Vec::new();
        match tool(Tool::GoOrigin) {
            Some(program) => all.push(Self::on_a_port("Go", "h2c", &mut Command::new(program))),
            None => skip(&format!("{test} (Go)"), Tool::GoOrigin),
        }
        match tool(Tool::Node) {
            Some(program) => {
                let mut command = Command::new(program);
                command.arg(peer("origins/origin.mjs")).arg("http2");
                all.push(Self::on_a_port("Node", "h2c", &mut command));
            }
            None => skip(&format!("{test} (Node)"), Tool::Node),
        }
        all
    }

    /// The requests that it has told so far.
    pub(super) fn seen(&self) -> Vec<Value> {
        let told = self.process.stdout();
        let lines = told
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line.get("target").is_some())
            // nginx tells those that it refuses, too.
            .filter(|line| line["status"].as_u64().is_none_or(|status| status < 400));
        lines.collect()
    }

    /// One that prints its port.
    fn on_a_port(name: &'static str, scheme: &str, command: &mut Command) -> Self {
        let mut process = Running::start(command);
        let port = process.json_line()["port"].as_u64().expect("a port");
        Self {
            name,
            url: format!("{scheme}://127.0.0.1:{port}"),
            process,
            _folder: folder(),
        }
    }

    /// One that listens on the socket `name.sock` in a folder of its own.
    async fn on_a_socket(name: &'static str, folder: TempDir, command: &mut Command) -> Self {
        let mut process = Running::start(command);
        let socket = folder.path().join(name).with_extension("sock");
        loop {
            if UnixStream::connect(&socket).await.is_ok() {
                break;
            }
            until(name, || process.is_running().then_some(()));
            tokio::task::yield_now().await;
        }
        Self {
            name,
            url: format!("unix://{}", socket.display()),
            process,
            _folder: folder,
        }
    }

    async fn nginx(name: &'static str, program: &Path) -> Self {
        let folder = folder();
        let text = std::fs::read_to_string(peer("origins/nginx.conf")).expect("it is there");
        let text = text.replace("FOLDER", folder.path().to_str().expect("the path is text"));
        let config = write(folder.path(), "nginx.conf", text);
        let mut command = Command::new(program);
        command.arg("-c").arg(config);
        command.arg("-e").arg(folder.path().join("error.log"));
        Self::on_a_socket(name, folder, &mut command).await
    }

    async fn python(name: &'static str, program: &Path) -> Self {
        let folder = folder();
        let socket = folder.path().join(name).with_extension("sock");
        let mut command = Command::new(program);
        command.args(["-m", name]).current_dir(peer("origins"));
        // Nothing is left beside the application.
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        if name == "gunicorn" {
            command.args(["origin:wsgi", "--worker-class", "gthread", "--threads", "4"]);
            command.args(["--keep-alive", "60", "--bind"]);
            command.arg(format!("unix:{}", socket.display()));
        } else {
            command.args(["origin:asgi", "--http", "h11", "--no-access-log"]);
            command
                .args(["--timeout-keep-alive", "60", "--uds"])
                .arg(socket);
        }
        Self::on_a_socket(name, folder, &mut command).await
    }
}

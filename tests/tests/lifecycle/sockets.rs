//! Sockets that a service manager has bound: by systemd's own tool, and by the protocol.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sidegate_tests::{Running, Sidegate, Tool, root, sidegate, skip, tool, until};

use super::reload::hang_up;
use crate::support::{Client, Configuration, finish, folder, logged};

/// Workers that share one socket.
const WORKERS: &str = "[proxy]\nworkers = 3\n";

fn port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

fn listening(name: &str) -> Configuration {
    let mut configuration = Configuration::new().rest(WORKERS);
    configuration.listener = configuration
        .listener
        .replace("127.0.0.1:0", &format!("systemd:{name}"));
    configuration
}

fn client(folder: &Path, address: &str) -> Client {
    let file = |name: &str| folder.join("demo").join(name);
    Client::new(
        address,
        &file("bundle.pem"),
        &file("svid.pem"),
        &file("key.pem"),
    )
}

/// `sidegate run` with sockets, by Python.
fn passing(test: &str, sockets: &[String], config: &Path) -> Option<Command> {
    let Some(python) = tool(Tool::Python) else {
        skip(test, Tool::Python);
        return None;
    };
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/peers/pass_sockets.py"))
        .args(sockets)
        .arg("--")
        .arg(sidegate())
        .args(["run", "-o", "json", "--config"])
        .arg(config);
    Some(command)
}

/// Many connections at once are served, whichever worker takes each.
async fn served(client: &Client, sidegate: &Sidegate) {
    let mut connections = Vec::new();
    for _ in 0..30 {
        let mut connection = client.http1().await;
        let request = http::Request::get("/status/200").header("host", "localhost");
        let request = request.body(crate::support::body("")).unwrap();
        let answer = connection.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        connections.push(connection);
    }
    assert!(!sidegate.process.stderr().contains("SG0307"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passed_socket_serves_through_reloads_and_one_that_nobody_uses_is_told() {
    let folder = folder();
    let (web, spare) = (port(), port());
    let address = format!("127.0.0.1:{web}");
    let sockets = [format!("web={address}"), format!("spare=127.0.0.1:{spare}")];
    let config = listening("web").write(folder.path());
    let test = "a_passed_socket_serves_through_reloads_and_one_that_nobody_uses_is_told";
    let Some(mut command) = passing(test, &sockets, &config) else {
        return;
    };
    let sidegate = Sidegate::start(&mut command);
    assert_eq!(crate::support::address(&sidegate), address);
    logged(&sidegate, &["SG0077", "spare"]);
    let at_web = client(folder.path(), &address);
    served(&at_web, &sidegate).await;

    // The same socket with other settings, then another one, then the first again.
    let mut limited = listening("web");
    limited.listener += "[listener.limits]\nmax_uri_bytes = \"100B\"\n";
    limited.write(folder.path());
    hang_up(&sidegate, "the configuration is reloaded");
    let long = format!("/{}", "a".repeat(200));
    assert_eq!(at_web.get(&long).await.status, 414);
    listening("spare").write(folder.path());
    hang_up(&sidegate, "the configuration is reloaded");
    logged(&sidegate, &["SG0077", "web"]);
    let at_spare = client(folder.path(), &format!("127.0.0.1:{spare}"));
    served(&at_spare, &sidegate).await;
    listening("web").write(folder.path());
    hang_up(&sidegate, "the configuration is reloaded");
    served(&at_web, &sidegate).await;

    // A name that was not passed changes nothing.
    listening("nonsense").write(folder.path());
    hang_up(&sidegate, "SG0072");
    logged(&sidegate, &["SG0075", "it passed `web`, `spare`"]);
    served(&at_web, &sidegate).await;
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[test]
fn a_name_that_was_not_passed_is_refused_at_its_place_with_those_that_were() {
    let folder = folder();
    let config = listening("wbe").write(folder.path());
    // Without a service manager, and with the variables of another process.
    for variables in [&[][..], &[("LISTEN_PID", "1"), ("LISTEN_FDS", "1")]] {
        let mut command = Sidegate::command("run");
        command.arg("--config").arg(&config);
        let output = finish(command.envs(variables.iter().copied()));
        assert_eq!(output.status.code(), Some(2));
        for text in ["error[SG0075]", "it passed none", "systemd:wbe", "^^^"] {
            assert!(output.stderr.contains(text), "{}", output.stderr);
        }
    }
    let test = "a_name_that_was_not_passed_is_refused_at_its_place_with_those_that_were";
    let sockets = ["web", "admin", "twice", "twice"];
    let sockets = sockets.map(|name| format!("{name}=127.0.0.1:{}", port()));
    for (name, said) in [
        ("wbe", "it passed `web`, `admin`, `twice`, `twice`"),
        ("twice", "systemd passed 2 sockets called `twice`"),
    ] {
        let config = listening(name).write(folder.path());
        let Some(mut command) = passing(test, &sockets, &config) else {
            return;
        };
        let output = finish(&mut command);
        assert_eq!(output.status.code(), Some(2));
        assert!(output.stderr.contains("error[SG0075]"), "{}", output.stderr);
        assert!(output.stderr.contains(said), "{}", output.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemds_own_tool_starts_it_with_the_first_connection_which_is_served() {
    let test = "systemds_own_tool_starts_it_with_the_first_connection_which_is_served";
    let Some(activate) = tool(Tool::SocketActivate) else {
        skip(test, Tool::SocketActivate);
        return;
    };
    let folder = folder();
    // The client needs an identity before it can connect.
    let before = Configuration::new();
    let (once, _) = before.start(folder.path());
    assert_eq!(once.stop().status.code(), Some(0));
    let address = format!("127.0.0.1:{}", port());
    let config = listening("web").write(folder.path());
    let mut command = Command::new(activate);
    command
        .args(["--listen", &address, "--fdname", "web", "--"])
        .arg(sidegate())
        .args(["run", "-o", "json", "--config"])
        .arg(&config);
    let mut started = Running::start(&mut command);
    until("the tool listens", || {
        started.stderr().contains("Listening").then_some(())
    });
    let first = {
        let client = client(folder.path(), &address);
        tokio::spawn(async move { client.get("/status/200").await.status })
    };
    started.json_line();
    let status = tokio::time::timeout(Duration::from_secs(30), first).await;
    assert_eq!(status.unwrap().unwrap(), 200);
    let client = client(folder.path(), &address);
    assert_eq!(client.get("/status/201").await.status, 201);
    started.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(started.wait().status.code(), Some(0));
}

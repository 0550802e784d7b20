//! What a service manager is told, by a manager of the test's own.

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::time::ClockId;
use sidegate_tests::Sidegate;

use crate::support::{Configuration, finish, folder};

/// Receives what a service tells.
struct Manager(UnixDatagram);

impl Manager {
    fn new(socket: UnixDatagram) -> Self {
        let minute = Some(Duration::from_secs(60));
        socket.set_read_timeout(minute).unwrap();
        Self(socket)
    }

    /// The next message that has this field, as its fields.
    fn next_with(&self, field: &str) -> BTreeMap<String, String> {
        loop {
            let mut message = [0; 4096];
            let length = self.0.recv(&mut message).expect("a message comes");
            let text = std::str::from_utf8(&message[..length]).unwrap();
            let fields = text.lines().map(|line| line.split_once('=').unwrap());
            let fields = fields.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let fields: BTreeMap<_, _> = fields.collect();
            if fields.contains_key(field) {
                return fields;
            }
        }
    }
}

/// `sidegate run` as a service, with further variables.
fn start(
    configuration: &Configuration,
    folder: &std::path::Path,
    env: &[(&str, &str)],
) -> Sidegate {
    let config = configuration.write(folder);
    let mut command = Sidegate::command("run");
    command.args(["-o", "json", "--config"]).arg(config);
    Sidegate::start(command.envs(env.iter().copied()))
}

#[test]
fn it_tells_when_it_is_ready_reloads_and_stops() {
    let folder = folder();
    let path = folder.path().join("notify");
    let manager = Manager::new(UnixDatagram::bind(&path).unwrap());
    let configuration = Configuration::new();
    let variables = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let sidegate = start(&configuration, folder.path(), &variables);
    let ready = manager.next_with("READY");
    assert_eq!([&ready["READY"], &ready["STATUS"]], ["1", "serving"]);

    let now = || Duration::from(ClockId::CLOCK_MONOTONIC.now().unwrap()).as_micros();
    let before = now();
    sidegate.process.signal(Signal::SIGHUP);
    let reloading = manager.next_with("RELOADING");
    let told: u128 = reloading["MONOTONIC_USEC"].parse().unwrap();
    assert!((before..=now()).contains(&told), "{told}");
    assert_eq!(manager.next_with("READY")["STATUS"], "serving");

    let config = folder.path().join("sidegate.toml");
    fs::write(&config, "nonsense").unwrap();
    sidegate.process.signal(Signal::SIGHUP);
    manager.next_with("RELOADING");
    let status = manager.next_with("READY")["STATUS"].clone();
    assert!(status.ends_with("file is refused"), "{status}");
    let changed = configuration.rest("[proxy]\nworkers = 1\n");
    changed.write(folder.path());
    sidegate.process.signal(Signal::SIGHUP);
    let status = manager.next_with("READY")["STATUS"].clone();
    assert!(status.contains("1 change of"), "{status}");

    let ended = std::thread::spawn(|| sidegate.stop());
    assert_eq!(manager.next_with("STOPPING")["STOPPING"], "1");
    assert_eq!(ended.join().unwrap().status.code(), Some(0));
}

#[test]
fn an_abstract_socket_is_told_too_and_the_watchdog_is_fed_where_it_is_for_this_process() {
    let folder = folder();
    let name = format!("sidegate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::new(UnixDatagram::bind_addr(&address).unwrap());
    let socket = format!("@{name}");
    let variables = [
        ("NOTIFY_SOCKET", socket.as_str()),
        ("WATCHDOG_USEC", "20000"),
    ];
    let sidegate = start(&Configuration::new(), folder.path(), &variables);
    manager.next_with("READY");
    for _ in 0..3 {
        assert_eq!(manager.next_with("WATCHDOG")["WATCHDOG"], "1");
    }
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[test]
fn a_socket_that_is_none_is_refused() {
    let folder = folder();
    let config = Configuration::new().write(folder.path());
    let mut command = Sidegate::command("run");
    command.arg("--config").arg(config);
    let output = finish(command.env("NOTIFY_SOCKET", "relative"));
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.contains("error[SG0074]"), "{}", output.stderr);
}

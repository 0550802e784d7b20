//! `sidegate up`: everything from one command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use http::Request;
use nix::sys::signal::Signal;
use serde_json::Value;
use sidegate_tests::{Running, Sidegate, Tool, guest, skip, tool, until};

use crate::support::{
    Client, access_line, address, admin, body, counter, finish, folder, patiently, read, up,
};

#[test]
fn the_ready_line_has_exactly_the_promised_fields_and_absolute_paths() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let stdout = sidegate.process.stdout();
    assert_eq!(stdout.lines().count(), 1, "{stdout}");
    let line: Value = serde_json::from_str(stdout.trim()).unwrap();

    let keys = |value: &Value| {
        let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
        keys.sort();
        keys.join(" ")
    };
    assert_eq!(
        keys(&line),
        "admin demo listeners ready state workload_socket"
    );
    assert_eq!(keys(&line["listeners"][0]), "address name spiffe_id");
    assert_eq!(
        keys(&line["demo"]),
        "bundle key spiffe_id svid url_allowed url_denied"
    );

    let state = folder.path().join("state").canonicalize().unwrap();
    let demo = state.join("demo");
    let address = address(&sidegate);
    assert_eq!(line["ready"], true);
    assert_eq!(
        line["listeners"][0]["spiffe_id"],
        "spiffe://sidegate.local/probe"
    );
    assert_eq!(line["state"], state.to_str().unwrap());
    assert_eq!(
        line["workload_socket"],
        format!("unix://{}/workload.sock", state.display())
    );
    assert_eq!(line["demo"]["spiffe_id"], "spiffe://sidegate.local/demo");
    for (key, file) in [
        ("svid", "svid.pem"),
        ("key", "key.pem"),
        ("bundle", "bundle.pem"),
    ] {
        assert_eq!(line["demo"][key], demo.join(file).to_str().unwrap());
    }
    let port = address.rsplit_once(':').unwrap().1;
    for key in ["url_allowed", "url_denied"] {
        let url = line["demo"][key].as_str().unwrap();
        assert!(url.starts_with(&format!("https://localhost:{port}/")));
    }
}

#[test]
fn the_two_printed_commands_run_as_printed_whatever_the_directory_is_called() {
    if tool(Tool::Curl).is_none() {
        return skip("the two printed commands", Tool::Curl);
    }
    let folder = folder();
    let mut process = Running::start(
        Sidegate::command("up")
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--state")
            .arg(folder.path().join("it's my $state")),
    );
    let commands = until("two commands", || {
        assert!(process.is_running(), "{}", process.stderr());
        let stdout = process.stdout();
        let lines = stdout.lines().map(str::trim);
        let commands: Vec<String> = lines
            .filter(|line| line.starts_with("curl "))
            .map(ToOwned::to_owned)
            .collect();
        (commands.len() == 2).then_some(commands)
    });
    let shell = |command: &str| finish(Command::new("sh").args(["-c", command]));

    let allowed = shell(&commands[0]);
    assert!(allowed.status.success(), "{}", allowed.stderr);
    assert!(
        allowed.stdout.contains("Hello from a component"),
        "{}",
        allowed.stdout
    );
    assert!(allowed.stdout.contains("spiffe://sidegate.local/demo"));

    let denied = shell(&commands[1]);
    assert!(!denied.stdout.contains("Hello"), "{}", denied.stdout);
    let denied = shell(&format!("{} -i", commands[1]));
    assert!(denied.stdout.contains(" 403"), "{}", denied.stdout);
    assert!(denied.stdout.contains("x-request-id: "));
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().status.code(), Some(0));
}

#[test]
fn the_state_directory_is_in_the_current_one_and_private() {
    let folder = folder();
    let mut command = Sidegate::command("up");
    command
        .args([
            "--listen",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "-o",
            "json",
        ])
        .current_dir(folder.path());
    let sidegate = Sidegate::start(&mut command);

    let state = folder.path().canonicalize().unwrap().join(".sidegate");
    assert_eq!(sidegate.ready.state, state);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("authority.pem")), 0o600);
    assert_eq!(mode(&sidegate.demo().key), 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_greets_its_caller_and_the_stock_policy_denies_the_rest() {
    let folder = folder();
    let sidegate = Sidegate::up(&folder.path().join("state"), [""; 0]);
    let client = Client::demo(&sidegate);
    let path = |url: &str| url.split_once("://localhost").unwrap().1.to_owned();
    let path = |url: &str| {
        let rest = path(url);
        rest[rest.find('/').unwrap()..].to_owned()
    };

    let allowed = client.get(&path(&sidegate.demo().url_allowed)).await;
    assert_eq!(allowed.status, 200);
    assert!(
        allowed
            .body
            .contains("You are spiffe://sidegate.local/demo")
    );

    let denied = client.get(&path(&sidegate.demo().url_denied)).await;
    assert_eq!(denied.status, 403);
    assert_eq!(denied.body, "");
    let line = access_line(&sidegate, denied.header("x-request-id"));
    assert_eq!(line["status"], 403);
    assert_eq!(line["verdict"], "deny");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_log_has_one_line_of_json_for_each_request() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);

    let mut decisions = Vec::new();
    for (path, verdict) in [("/status/204", "allow"), ("/admin", "deny")] {
        let answer = client.get(path).await;
        let line = access_line(&sidegate, answer.header("x-request-id"));
        assert_eq!(line["peer"], "spiffe://sidegate.local/demo");
        assert_eq!(line["verdict"], verdict);
        assert_eq!(line["status"], answer.status.as_u16());
        assert_eq!(line["method"], "GET");
        assert_eq!(line["path"], path);
        assert!(line["duration_ms"].is_number(), "{line}");
        // An answer without content ends well, although nobody asks for its content.
        assert_eq!(line.get("error").is_none(), verdict == "allow", "{line}");
        decisions.push(line["decision_id"].as_str().unwrap().to_owned());
    }
    assert_ne!(decisions[0], decisions[1]);
    let stderr = sidegate.process.stderr();
    assert_eq!(
        stderr.lines().filter(|line| line.starts_with('{')).count(),
        2,
        "{stderr}"
    );
}

#[test]
fn the_admin_port_serves_health_and_metrics_and_nothing_else() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let cases = [
        ("/livez", 200),
        ("/readyz", 200),
        ("/metrics", 200),
        ("/", 404),
        ("/v1", 404),
        ("/v1/status", 404),
        ("/config_dump", 404),
        ("/debug/pprof", 404),
        ("/metrics/", 404),
        ("//metrics", 404),
    ];
    for (path, expected) in cases {
        let (status, _) = admin(&sidegate, path).unwrap();
        assert_eq!(status, expected, "{path}");
    }
    let (_, metrics) = admin(&sidegate, "/metrics").unwrap();
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_sigterm_what_runs_is_finished_readiness_says_so_and_the_exit_code_is_0() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    let address = client.address.clone();

    let mut connection = client.http1().await;
    let mut idle = client.http1().await;
    let warm = Request::get("/status/200").header("host", "localhost");
    read(
        idle.send_request(warm.body(body("")).unwrap())
            .await
            .unwrap(),
    )
    .await;
    let request = Request::get("/sleep/3000").header("host", "localhost");
    let running = tokio::spawn(connection.send_request(request.body(body("")).unwrap()));
    until("the component works on it", || {
        (counter(&sidegate, "sidegate_component_instances", &[]) > 0.5).then_some(())
    });

    sidegate.process.signal(Signal::SIGTERM);
    until("readiness says that it drains", || {
        let (status, text) = admin(&sidegate, "/readyz")?;
        (status == 503 && text.contains("draining")).then_some(())
    });
    assert_eq!(admin(&sidegate, "/livez").unwrap().0, 200);
    until("nobody listens", || {
        std::net::TcpStream::connect(&address)
            .is_err()
            .then_some(())
    });
    until("the idle connection is closed", || {
        idle.is_closed().then_some(())
    });

    let answer = read(patiently(running).await.unwrap().unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "slept\n")
    );
    let socket = sidegate.ready.state.join("workload.sock");
    let output = sidegate.process.wait();
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_stops_it_as_well() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    sidegate.process.signal(Signal::SIGINT);
    assert_eq!(sidegate.process.wait().status.code(), Some(0));
}

#[test]
fn an_identity_hangs_on_the_components_content_and_its_name_on_the_file() {
    let folder = folder();
    let state = folder.path().join("state");
    let hello = guest("hello");
    let sidegate = Sidegate::up(&state, [&hello]);
    assert_eq!(
        sidegate.ready.listeners[0].spiffe_id,
        "spiffe://sidegate.local/hello"
    );
    drop(sidegate);
    let sidegate = Sidegate::up(&state, [&guest("probe")]);
    assert_eq!(
        sidegate.ready.listeners[0].spiffe_id,
        "spiffe://sidegate.local/probe"
    );
}

#[test]
fn environment_variables_stand_for_flags_and_flags_win() {
    let folder = folder();
    let state = folder.path().join("state");
    let mut command = Sidegate::command("up");
    command
        .env("SIDEGATE_LISTEN", "127.0.0.1:0")
        .env("SIDEGATE_ADMIN", "127.0.0.1:0")
        .env("SIDEGATE_STATE", folder.path().join("elsewhere"))
        .env("SIDEGATE_TRUST_DOMAIN", "by.environment")
        .args(["-o", "json"])
        .arg("--state")
        .arg(&state);
    let sidegate = Sidegate::start(&mut command);
    assert_eq!(sidegate.ready.state, state.canonicalize().unwrap());
    assert_eq!(sidegate.demo().spiffe_id, "spiffe://by.environment/demo");
}

//! nginx with mutual TLS.

use std::process::Command;

use anyhow::Result;

use super::super::cases::{Group, IDLE_CONNECTIONS};
use super::Setup;

pub(super) fn configure(command: &mut Command, setup: &Setup<'_>) -> Result<()> {
    let path = setup.write("nginx.conf", &configuration(setup))?;
    command
        .arg("-p")
        .arg(&setup.folder)
        .args(["-e", "stderr", "-c"])
        .arg(path);
    Ok(())
}

fn configuration(setup: &Setup<'_>) -> String {
    let forward = match setup.group {
        Group::Http1 | Group::Memory => {
            "proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_set_header Host $host;
            proxy_pass http://upstream;"
        }
        Group::Http2 => "grpc_pass grpc://upstream;",
    };
    format!(
        "daemon off;
# Root starts it, and the files are root's.
user root;
pid nginx.pid;
error_log stderr warn;
worker_processes {workers};
worker_rlimit_nofile {descriptors};
events {{
    worker_connections {connections};
}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    client_max_body_size 0;
    keepalive_timeout 10m;
    keepalive_requests 1000000000;
    upstream upstream {{
        server {upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen} ssl http2;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        ssl_client_certificate {roots};
        ssl_verify_client on;
        ssl_verify_depth 3;
        ssl_protocols TLSv1.3;
        ssl_session_cache off;
        ssl_session_tickets off;
        location / {{
            {forward}
        }}
    }}
}}
",
        workers = setup.workers,
        descriptors = IDLE_CONNECTIONS + 2_000,
        connections = IDLE_CONNECTIONS + 1_000,
        listen = setup.address,
        upstream = setup.upstream,
        chain = setup.credentials.file("server.pem").display(),
        key = setup.credentials.file("server.key").display(),
        roots = setup.credentials.file("roots.pem").display(),
    )
}

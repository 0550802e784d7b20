//! haproxy with mutual TLS.

use std::process::Command;

use anyhow::Result;

use super::super::cases::Group;
use super::Setup;

pub(super) fn configure(command: &mut Command, setup: &Setup<'_>) -> Result<()> {
    let path = setup.write("haproxy.cfg", &configuration(setup))?;
    command.arg("-db").arg("-f").arg(path);
    Ok(())
}

fn configuration(setup: &Setup<'_>) -> String {
    let protocol = match setup.group {
        Group::Http1 | Group::Memory => "",
        Group::Http2 => " proto h2",
    };
    format!(
        "global
    nbthread {workers}
    tune.ssl.cachesize 0
defaults
    mode http
    timeout client 10m
    timeout server 10m
    timeout connect 2s
    timeout http-keep-alive 10m
frontend main
    bind {listen} ssl crt {both} ca-file {roots} verify required alpn h2,http/1.1 \
         ssl-min-ver TLSv1.3 no-tls-tickets
    default_backend upstream
backend upstream
    http-reuse always
    server one {upstream}{protocol}
",
        workers = setup.workers,
        listen = setup.address,
        both = setup.credentials.file("both.pem").display(),
        roots = setup.credentials.file("roots.pem").display(),
        upstream = setup.upstream,
    )
}

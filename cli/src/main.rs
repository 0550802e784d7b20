//! `sidegate`: identities, mutual TLS and policy for every workload, in one binary.
//!
//! This crate joins the rooms: [`config`] says what to run, [`instance`] runs it, [`commands`] are
//! what a user can say. Only here are the environment and the command line read.

mod admin;
mod arguments;
mod check;
mod commands;
mod config;
mod failure;
mod instance;
mod output;
mod systemd;
mod table;
mod telemetry;
mod transport;

use std::process::ExitCode;

use clap::Parser;

use arguments::Arguments;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // An error means that a provider is installed already: it is this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match commands::execute(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(failure::ANSWER_IS_NO),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure::COULD_NOT)
        }
    }
}

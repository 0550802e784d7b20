//! `source = "spire-server"`: Sidegate as the SPIRE agent of its machine.
//!
//! Each scenario runs against SPIRE's own server, where the machine has one, and against one that is
//! played in the test's process; faults run against the latter only.

/// A test of each scenario for each server, with the options that the server starts with.
macro_rules! scenarios {
    ($($name:ident ($options:expr);)*) => {
        mod played {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let server = crate::spire::played::Played::start(stringify!($name), &$options);
                    super::$name(server.expect("it needs nothing")).await;
                }
            )*
        }
        mod real {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let name = concat!("spire::real::", stringify!($name));
                    if let Some(server) = crate::spire::real::Real::start(name, &$options) {
                        super::$name(server).await;
                    }
                }
            )*
        }
    };
}

mod absence;
mod agent;
mod attestation;
mod authorities;
mod damage;
mod entries;
mod exclusion;
mod federation;
mod figures;
mod gate;
mod peers;
mod played;
mod real;
mod renewal;
mod server;

//! A caller of the Workload API that ends as soon as it has called.
//!
//! Usage: `passing-caller SOCKET REQUEST [stay]`. Its standard input is an unconnected Unix socket:
//! it connects that, so that the kernel knows it as the caller, and writes the file REQUEST to it.
//! Whoever started it keeps the socket and reads the answer. With `stay` it lives on.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::socket::{UnixAddr, connect};
use nix::unistd::write;

fn main() -> io::Result<()> {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [socket, request, stay @ ..] = arguments.as_slice() else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let request = std::fs::read(request)?;
    let input = io::stdin();
    let address = UnixAddr::new(socket.as_os_str())?;
    connect(input.as_fd().as_raw_fd(), &address)?;
    let mut rest = request.as_slice();
    while !rest.is_empty() {
        let written = write(input.as_fd(), rest)?;
        rest = rest.split_at(written).1;
    }
    while !stay.is_empty() {
        std::thread::park();
    }
    Ok(())
}

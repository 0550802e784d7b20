//! Sockets that hand each connection to a server of a test.

use std::path::Path;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Listens on a free port of the loopback interface; returns `http://host:port`.
pub(crate) async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    format!("http://{address}")
}

/// The same on a Unix socket; returns `unix://path`.
pub(crate) fn listen_at<F>(
    socket: &Path,
    serve: impl Fn(UnixStream) -> F + Send + 'static,
) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = UnixListener::bind(socket).expect("a socket");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    format!("unix://{}", socket.display())
}

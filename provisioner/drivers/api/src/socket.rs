//! Both ends of a driver's Unix socket.

use std::future::Future;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tonic::transport::{Channel, Endpoint, Server, Uri};

use crate::{WorkerDriver, WorkerDriverClient, WorkerDriverServer};

/// Serves `driver` on a Unix socket until `shutdown` completes.
///
/// A socket file left by an earlier run is replaced; the file is readable by its owner only,
/// because whoever can connect can run code as this process's user.
///
/// # Errors
/// The directory cannot be written, or the listener fails.
pub async fn serve<D, F>(socket: &Path, driver: D, shutdown: F) -> anyhow::Result<()>
where
    D: WorkerDriver,
    F: Future<Output = ()>,
{
    let listener = listen(socket)?;
    let incoming = incoming(listener);
    Server::builder()
        .add_service(WorkerDriverServer::new(driver))
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
        .with_context(|| format!("serving on {}", socket.display()))?;
    // The next run replaces the file if it cannot be removed now.
    let _ = std::fs::remove_file(socket);
    Ok(())
}

fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    }
    match std::fs::remove_file(socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("replacing {}", socket.display()));
        }
        _ => {}
    }
    let listener =
        UnixListener::bind(socket).with_context(|| format!("listening on {}", socket.display()))?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("protecting {}", socket.display()))?;
    Ok(listener)
}

fn incoming(
    listener: UnixListener,
) -> impl tokio_stream::Stream<Item = std::io::Result<UnixStream>> {
    tokio_stream::wrappers::UnixListenerStream::new(listener)
}

/// A client for the driver that listens on `socket`.
///
/// Nothing is dialled before the first call, and a lost connection is dialled again by the next
/// call, so a driver may be restarted under a long-lived client.
pub fn connect(socket: &Path) -> WorkerDriverClient<Channel> {
    let path = socket.to_path_buf();
    // The address is never resolved: the connector below ignores it.
    let channel = Endpoint::from_static("http://driver.invalid").connect_with_connector_lazy(
        tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }),
    );
    WorkerDriverClient::new(channel)
}

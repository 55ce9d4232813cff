//! The control socket: HTTP/1.1 and JSON over a Unix stream socket. Each request becomes a [`Call`] to the
//! daemon and waits for its answer; nothing is decided here. Routes are in [`routes`].

mod configurations;
mod exchange;
mod input;
mod observe;
mod orders;
mod questions;
mod refusals;
mod routes;
mod tcp;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use nix::unistd::{Gid, Group, chown};
use socket2::{Domain, SockAddr, Type};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};

pub use self::tcp::{Listener, ListenerError};
use crate::api::{Request, Response};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/lb/lb.sock";

/// How long a client waits for the daemon before it is told 503.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long requests under way may take once the daemon stops.
const DRAIN: Duration = Duration::from_secs(2);

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Read and write for owner and group: whoever may connect may change everything.
const SOCKET_MODE: u32 = 0o660;

/// Mode of the directory if it has to be made.
const DIRECTORY_MODE: u32 = 0o755;

/// A request on its way to the daemon, and where the answer goes.
#[derive(Debug)]
pub struct Call {
    /// What the client wants.
    pub request: Request,
    /// Takes the answer. Nobody may be listening any more; that is no error.
    pub reply: oneshot::Sender<Response>,
    /// Where a stream goes, if the client wants one: pieces after [`Response::Streaming`].
    pub stream: Option<mpsc::Sender<Bytes>>,
}

/// Why the control socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Somebody answers there.
    #[error(
        "cannot listen on {}: another daemon already does; stop it first or choose another --socket",
        path.display()
    )]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// A file that must not be replaced.
    #[error(
        "cannot listen on {}: a file that is no socket stands there; remove it or choose another --socket",
        path.display()
    )]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// `--socket-group` names no group.
    #[error(
        "cannot give {} to group \"{group}\": no such group; create it (groupadd --system {group}) \
         or leave out --socket-group",
        path.display()
    )]
    NoGroup {
        /// The socket.
        path: PathBuf,
        /// The name looked for.
        group: String,
    },
    /// The system refused.
    #[error("cannot {attempt} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// A bound control socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    file: SocketFile,
}

impl Socket {
    /// Binds and listens at `path` (mode 0660; group root, or `group`), making the directory if need be and
    /// replacing a socket file that nobody listens on. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`SocketError`] if somebody listens there already, something else stands there, the group does not
    /// exist, or the system refuses.
    pub fn bind(path: &Path, group: Option<&str>) -> Result<Self, SocketError> {
        let failed = |attempt| move |source| SocketError::Io { attempt, path: path.to_owned(), source };
        let gid = group.map(|name| group_id(path, name)).transpose()?;
        make_directory(path)?;
        make_room(path)?;

        let socket =
            socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("make a socket for"))?;
        socket.set_nonblocking(true).map_err(failed("prepare"))?;
        let address = SockAddr::unix(path).map_err(failed("use the path"))?;
        socket.bind(&address).map_err(failed("bind"))?;
        let file = SocketFile::at(path).map_err(failed("look at"))?;
        // Nobody can connect before listen(), so there is no moment with looser permissions.
        fs::set_permissions(path, fs::Permissions::from_mode(SOCKET_MODE))
            .map_err(failed("set the mode of"))?;
        if let Some(gid) = gid {
            chown(path, None, Some(gid)).map_err(|errno| failed("set the group of")(errno.into()))?;
        }
        socket.listen(BACKLOG).map_err(failed("listen on"))?;
        let listener = UnixListener::from_std(std::os::unix::net::UnixListener::from(
            std::os::fd::OwnedFd::from(socket),
        ))
        .map_err(failed("listen on"))?;
        Ok(Self { listener, file })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Serves until `stop` resolves; requests under way then get a moment to finish, and the file is removed.
    ///
    /// # Errors
    /// If accepting connections fails for good.
    pub async fn serve(
        self,
        calls: mpsc::Sender<Call>,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let Self { listener, file } = self;
        let (stopping, stopped) = oneshot::channel();
        let server =
            axum::serve(listener, routes::router(calls, PATIENCE)).with_graceful_shutdown(async move {
                stop.await;
                drop(file);
                drop(stopping);
            });
        // A client that sends half a request must not keep the daemon from stopping.
        let drained = async {
            drop(stopped.await as Result<(), _>);
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            result = server.into_future() => result,
            () = drained => Ok(()),
        }
    }
}

/// The socket's file, removed on drop unless another daemon has put its own there.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), inode: metadata.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode));
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn group_id(path: &Path, name: &str) -> Result<Gid, SocketError> {
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid),
        Ok(None) => Err(SocketError::NoGroup { path: path.to_owned(), group: name.to_owned() }),
        Err(errno) => Err(SocketError::Io {
            attempt: "look up the group of",
            path: path.to_owned(),
            source: errno.into(),
        }),
    }
}

fn make_directory(path: &Path) -> Result<(), SocketError> {
    let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists())
    else {
        return Ok(());
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(directory)
        // Whatever the umask: the group has to get in.
        .and_then(|()| fs::set_permissions(directory, fs::Permissions::from_mode(DIRECTORY_MODE)))
        .map_err(|source| SocketError::Io {
            attempt: "make the directory",
            path: directory.to_owned(),
            source,
        })
}

/// Removes a socket file that nobody listens on.
fn make_room(path: &Path) -> Result<(), SocketError> {
    let failed = |attempt| move |source| SocketError::Io { attempt, path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at")(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    let address = SockAddr::unix(path).map_err(failed("use the path"))?;
    let trial = socket2::Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed("try"))?;
    // Non-blocking, because a daemon whose backlog is full would hold us here.
    trial.set_nonblocking(true).map_err(failed("try"))?;
    match trial.connect(&address) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the stale socket"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
            Err(failed("find out who listens on")(error))
        }
        Ok(()) | Err(_) => Err(SocketError::Busy { path: path.to_owned() }),
    }
}

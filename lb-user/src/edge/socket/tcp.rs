//! The same routes over TCP, off unless asked for: questions for everybody who gets here, the rest for those who have the
//! token. Clients are strangers: they get little time and little room.

use std::{
    fs, io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Request as HttpRequest, State},
    http::{Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response as HttpResponse},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use subtle::ConstantTimeEq as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
};

use super::{Call, PATIENCE, exchange::Answer, routes};
use crate::api::RefusalKind;

/// Connections at a time; more are closed at once.
const CONNECTIONS: usize = 64;

/// How long a client may take for the head of a request, the first or another.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Largest head of a request; bytes.
const HEAD_LIMIT: usize = 16 << 10;

/// The shortest token that is taken; bytes.
const SHORTEST: usize = 16;

/// Why there is no TCP listener.
#[derive(Debug, thiserror::Error)]
pub enum ListenerError {
    /// The system refused.
    #[error("cannot listen on {address} (--api-listen): {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// The system's words.
        source: io::Error,
    },
    /// The token cannot be read.
    #[error("cannot read the token in {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// Others can read the token.
    #[error("the token in {} can be read by everybody: chmod 0600 {}", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The token is too short to be one.
    #[error(
        "the token in {} is shorter than {SHORTEST} characters: head -c 32 /dev/urandom | base64 > {}",
        path.display(),
        path.display()
    )]
    Short {
        /// The file.
        path: PathBuf,
    },
}

/// A bound TCP listener.
#[derive(Debug)]
pub struct Listener {
    listener: TcpListener,
    token: Option<Arc<str>>,
}

impl Listener {
    /// Binds and listens; with a file that holds a token, whoever knows it may do everything. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ListenerError`]: the address is taken or not this machine's, or the token is of no use.
    pub fn bind(address: SocketAddr, token: Option<&Path>) -> Result<Self, ListenerError> {
        let token = token.map(read).transpose()?;
        let failed = |source| ListenerError::Bind { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener: TcpListener::from_std(listener).map_err(failed)?, token })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub async fn serve(self, calls: mpsc::Sender<Call>) {
        let Self { listener, token } = self;
        let router = routes::router(calls, PATIENCE).layer(middleware::from_fn_with_state(token, guard));
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most of all: it passes.
                    tracing::warn!(%error, "cannot accept a client of the API");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            // Too many: this one is closed.
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            let router = router.clone();
            tokio::spawn(async move {
                talk(stream, router).await;
                drop(permit);
            });
        }
    }
}

async fn talk(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_LIMIT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    // A client that breaks off is no news.
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a client of the API broke off");
    }
}

fn read(path: &Path) -> Result<Arc<str>, ListenerError> {
    let failed = |source| ListenerError::Unreadable { path: path.to_owned(), source };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        return Err(ListenerError::Exposed { path: path.to_owned() });
    }
    let text = fs::read_to_string(path).map_err(failed)?;
    let token = text.trim();
    if token.len() < SHORTEST {
        return Err(ListenerError::Short { path: path.to_owned() });
    }
    Ok(token.into())
}

/// Whether a request needs no token: it changes nothing, and shows no packet's contents.
fn is_open(method: &Method, path: &str) -> bool {
    (method == Method::GET || method == Method::HEAD) && path != "/v1/capture"
}

async fn guard(State(token): State<Option<Arc<str>>>, request: HttpRequest, next: Next) -> HttpResponse {
    if is_open(request.method(), request.uri().path()) {
        return next.run(request).await;
    }
    let Some(token) = token else {
        let error =
            "this listener only answers questions: start the daemon with --api-token-file, or use the socket";
        return Answer::refuse(StatusCode::FORBIDDEN, RefusalKind::Conflict, error.to_owned())
            .into_response();
    };
    let given = request.headers().get(header::AUTHORIZATION).map(axum::http::HeaderValue::as_bytes);
    let given = given.and_then(|value| value.strip_prefix(b"Bearer ")).unwrap_or_default();
    if bool::from(given.ct_eq(token.as_bytes())) {
        return next.run(request).await;
    }
    let error = "this needs the token: Authorization: Bearer TOKEN".to_owned();
    let refusal = Answer::refuse(StatusCode::UNAUTHORIZED, RefusalKind::Conflict, error);
    ([(header::WWW_AUTHENTICATE, "Bearer")], refusal).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_is_no_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        assert!(matches!(read(&path), Err(ListenerError::Unreadable { .. })));
        fs::write(&path, "0123456789abcdef\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(read(&path), Err(ListenerError::Exposed { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(&*read(&path).unwrap(), "0123456789abcdef");
        fs::write(&path, "short\n").unwrap();
        assert!(matches!(read(&path), Err(ListenerError::Short { .. })));
    }

    #[test]
    fn only_questions_are_open() {
        assert!(is_open(&Method::GET, "/metrics") && is_open(&Method::HEAD, "/v1/status"));
        assert!(!is_open(&Method::GET, "/v1/capture"));
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            assert!(!is_open(&method, "/v1/status"), "{method}");
        }
    }
}

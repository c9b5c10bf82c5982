//! The agent's end of the admin socket.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{Answer, Question, REQUEST_MAX, Request, SOCKET};

/// Connections at a time; more wait.
const CONNECTIONS: usize = 16;
/// How long a client may take to ask, and the agent to answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Another agent answers there.
    #[error("another warren runs here and answers on {0}: stop it first, or give this one another node.run_dir")]
    InUse(PathBuf),
    /// The file system said no.
    #[error("the admin socket {path} cannot be made: {cause}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

/// Listens and hands requests over. Must be called within a `LocalSet`.
///
/// # Errors
/// When another agent answers there, or the directory cannot be written.
pub fn serve(run_dir: &Path) -> Result<mpsc::Receiver<Request>, AdminError> {
    let path = run_dir.join(SOCKET);
    let failed = |cause| AdminError::Io { path: path.clone(), cause };
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(run_dir).map_err(failed)?;
    if std::os::unix::net::UnixStream::connect(&path).is_ok() {
        return Err(AdminError::InUse(path));
    }
    match std::fs::remove_file(&path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let (requests, receiver) = mpsc::channel(CONNECTIONS);
    tokio::task::spawn_local(accept(listener, requests));
    Ok(receiver)
}

/// Takes the socket away, by which everybody sees that this agent ended of its own accord. While it still listens: afterwards
/// the path may be a successor's.
pub fn end(run_dir: &Path) {
    let _ = std::fs::remove_file(run_dir.join(SOCKET));
}

async fn accept(listener: UnixListener, requests: mpsc::Sender<Request>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while !requests.is_closed() {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let requests = requests.clone();
        tokio::task::spawn_local(async move {
            let _place = place;
            // A client that goes away or dawdles harms only itself.
            let _ = tokio::time::timeout(PATIENCE, converse(stream, requests)).await;
        });
    }
}

async fn converse(mut stream: UnixStream, requests: mpsc::Sender<Request>) -> io::Result<()> {
    let answer = if is_trusted(&stream) {
        let mut line = Vec::new();
        BufReader::new((&mut stream).take(REQUEST_MAX)).read_until(b'\n', &mut line).await?;
        match serde_json::from_slice(&line) {
            Ok(question) => answer(question, &requests).await,
            Err(error) => Answer::Failed(format!("the request is not understood: {error}")),
        }
    } else {
        Answer::Failed("only root and the agent's own user may ask".to_owned())
    };
    let mut text = serde_json::to_vec(&answer)?;
    text.push(b'\n');
    stream.write_all(&text).await?;
    stream.shutdown().await
}

fn is_trusted(stream: &UnixStream) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == own)
}

async fn answer(question: Question, requests: &mpsc::Sender<Request>) -> Answer {
    let stopping = || Answer::Failed("the agent is stopping".to_owned());
    match question {
        Question::Status {} => {
            let asked = forward(requests, Request::Status).await;
            asked.map_or_else(stopping, |status| Answer::Status(Box::new(status)))
        }
        Question::Verify { peer } => {
            let asked = forward(requests, |reply| Request::Verify { peer, reply }).await;
            asked.map_or_else(stopping, |found| found.map_or_else(Answer::Failed, Answer::Verify))
        }
        Question::AcceptMesh {} => done(forward(requests, Request::AcceptMesh).await),
        Question::Leave {} => done(forward(requests, Request::Leave).await),
    }
}

fn done(asked: Option<Result<String, String>>) -> Answer {
    match asked {
        Some(Ok(what)) => Answer::Done(what),
        Some(Err(why)) => Answer::Failed(why),
        None => Answer::Failed("the agent is stopping".to_owned()),
    }
}

async fn forward<T>(requests: &mpsc::Sender<Request>, make: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
    let (reply, answer) = oneshot::channel();
    requests.send(make(reply)).await.ok()?;
    answer.await.ok()
}

//! The command line's end of the admin socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};

use super::{Answer, Question, REPLY_MAX, SOCKET};

/// Longer than the agent's own patience.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no agent answers on {path} ({cause}): start it with `warren up --config FILE`, or name its configuration with --config FILE"
    )]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It answered something else.
    #[error("the agent's answer is not understood ({0}): is it of another version?")]
    Garbled(String),
    /// It refused.
    #[error("{0}")]
    Refused(String),
}

/// Whether there is an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It runs, whether or not it would answer.
    Runs,
    /// It ended without a chance to remove its socket.
    Killed,
    /// It ended of its own accord, or there never was one.
    Ended,
}

/// Whether the agent whose socket is in `run_dir` runs. Asks it nothing: one that hangs is there too.
///
/// # Errors
/// When the system does not let us see.
pub fn presence(run_dir: &Path) -> io::Result<Presence> {
    let (flags, path) = (SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, run_dir.join(SOCKET));
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new(&path)?) {
        // Its queue is full: it hangs.
        Ok(()) | Err(Errno::EAGAIN) => Ok(Presence::Runs),
        Err(Errno::ECONNREFUSED) => Ok(Presence::Killed),
        Err(Errno::ENOENT) => Ok(Presence::Ended),
        Err(error) => Err(error.into()),
    }
}

/// Asks the agent whose socket is in `run_dir`.
///
/// # Errors
/// When nobody answers, or the answer is a refusal.
pub fn ask(run_dir: &Path, question: &Question) -> Result<Answer, ClientError> {
    let path = run_dir.join(SOCKET);
    let unreachable = |cause| ClientError::Unreachable { path: path.clone(), cause };
    let mut line = serde_json::to_vec(question).map_err(|error| ClientError::Garbled(error.to_string()))?;
    line.push(b'\n');
    let stream = UnixStream::connect(&path).map_err(unreachable)?;
    let reply = converse(stream, &line).map_err(unreachable)?;
    match serde_json::from_slice(&reply) {
        Ok(Answer::Failed(why)) => Err(ClientError::Refused(why)),
        Ok(answer) => Ok(answer),
        Err(error) => Err(ClientError::Garbled(error.to_string())),
    }
}

/// The line that comes for this one. Who refuses a stranger answers before it reads anything, and closes.
fn converse(mut stream: UnixStream, line: &[u8]) -> io::Result<Vec<u8>> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let written = stream.write_all(line);
    let mut reply = Vec::new();
    let read = BufReader::new(stream.take(REPLY_MAX)).read_until(b'\n', &mut reply);
    if reply.is_empty() {
        written?;
    }
    read.map(|_| reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_comes_before_the_question_was_sent_is_read() {
        let (own, mut agent) = UnixStream::pair().unwrap();
        agent.write_all(b"no\n").unwrap();
        drop(agent);
        assert_eq!(converse(own, b"status\n").unwrap(), b"no\n");
    }

    #[test]
    fn an_agent_runs_while_it_listens_and_its_socket_says_how_it_ended() {
        let folder = tempfile::tempdir().unwrap();
        let look = || presence(folder.path()).unwrap();
        assert_eq!(look(), Presence::Ended);
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        assert_eq!(look(), Presence::Runs, "although it never answers");
        drop(listener);
        assert_eq!(look(), Presence::Killed);
        std::fs::remove_file(folder.path().join(SOCKET)).unwrap();
        assert_eq!(look(), Presence::Ended);
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        assert!(presence(&file).is_err(), "no folder: nobody can tell");
    }

    #[test]
    fn one_who_closes_without_a_word_is_an_error_that_says_so() {
        let (own, agent) = UnixStream::pair().unwrap();
        drop(agent);
        assert_eq!(converse(own, b"status\n").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}

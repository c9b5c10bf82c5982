//! A client of HTTP/1.1 that says exactly what it is told to, from inside a namespace.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::namespace::Namespace;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was answered.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The status code; 0 for a connection that was closed without a word.
    pub status: u16,
    /// The status line and the headers.
    pub head: String,
    /// What follows.
    pub body: String,
}

/// `GET PATH`; `None` when nobody listens there.
pub fn get(namespace: &Namespace, to: SocketAddr, path: &str) -> Option<Reply> {
    say(namespace, to, format!("GET {path} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes())
}

/// What is answered to some bytes; `None` when nobody listens there.
pub fn say(namespace: &Namespace, to: SocketAddr, bytes: &[u8]) -> Option<Reply> {
    let mut stream = connect(namespace, to)?;
    // It may have answered and hung up before everything was written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Some(reply(&String::from_utf8_lossy(&answer)))
}

/// A connection that nothing was said on yet; `None` when nobody listens there.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Option<TcpStream> {
    let stream = namespace.enter(|| TcpStream::connect_timeout(&to, PATIENCE)).ok()?;
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).expect("a socket has timeouts");
    }
    Some(stream)
}

fn reply(text: &str) -> Reply {
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

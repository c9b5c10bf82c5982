//! HTTP/1.1 over TLS on one connection: a request, its answer, and the end. Watches are answered in chunks for as long as they last.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::objects::{Objects, status};
use super::routes::{Answer, Watch, answer};
use super::{Mood, Shared};

/// How often a watch with nothing to say says so.
const BOOKMARK: Duration = Duration::from_millis(500);
/// The largest body.
const BODY_MAX: usize = 3 << 20;

/// As it came in.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) content_type: String,
    /// What stands behind `Bearer`.
    pub(super) token: Option<String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The value of a parameter.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
        Some(found.replace("%3D", "=").replace("%3A", ":").replace("%2C", ",").replace("%2F", "/").replace('+', " "))
    }
}

/// Serves one connection until it ends or is cut.
pub(super) async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    tokio::select! {
        _ = converse(stream, acceptor, &shared) => {}
        _ = cuts.changed() => {}
    }
}

async fn converse(stream: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(acceptor.accept(stream).await?);
    let Some(request) = read(&mut stream).await? else { return Ok(()) };
    let stream = stream.get_mut();
    let mood = shared.mood.lock().expect("no request panics").clone();
    match &mood {
        Mood::Silent => std::future::pending().await,
        Mood::Slow(time) => tokio::time::sleep(*time).await,
        Mood::Babbling => return send(stream, 200, b"<html>Welcome to the captive portal</html>").await,
        Mood::Status(code) => {
            let body = status(&(*code, "InternalError", "as the test wants it\u{1b}[2J".to_owned()));
            return send(stream, *code, body.to_string().as_bytes()).await;
        }
        Mood::Well
        | Mood::Refusing(_)
        | Mood::Eventless(_)
        | Mood::Busy
        | Mood::Lagging(_)
        | Mood::Strange
        | Mood::Lying => {}
    }
    let certified = stream.get_ref().1.peer_certificates().is_some();
    if !shared.admits(request.token.as_deref(), certified) {
        let body = status(&(401, "Unauthorized", "Unauthorized".to_owned()));
        return send(stream, 401, body.to_string().as_bytes()).await;
    }
    match answer(&request, shared, &mood) {
        Answer::Whole(code, body) => send(stream, code, body.to_string().as_bytes()).await?,
        Answer::Watch(watch) => follow(stream, shared, watch, &mood).await?,
    }
    stream.shutdown().await
}

async fn read(stream: &mut BufReader<TlsStream<TcpStream>>) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request { method, path: path.to_owned(), query: query.to_owned(), ..Request::default() };
    let mut length = 0;
    loop {
        let mut header = String::new();
        stream.read_line(&mut header).await?;
        let Some((name, value)) = header.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap_or(0),
            "authorization" => request.token = value.trim().strip_prefix("Bearer ").map(str::to_owned),
            "content-type" => request.content_type = value.trim().to_owned(),
            _ => {}
        }
    }
    request.body = vec![0; length.min(BODY_MAX)];
    stream.read_exact(&mut request.body).await?;
    Ok(Some(request))
}

async fn send(stream: &mut TlsStream<TcpStream>, code: u16, body: &[u8]) -> std::io::Result<()> {
    let head = format!(
        "HTTP/1.1 {code} Told\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n",
        body.len(),
        if code == 429 { "retry-after: 1\r\n" } else { "" }
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body).await?;
    stream.flush().await
}

/// A watch: what happened since, what happens, and bookmarks in between.
async fn follow(
    stream: &mut TlsStream<TcpStream>,
    shared: &Shared,
    mut watch: Watch,
    mood: &Mood,
) -> std::io::Result<()> {
    let mut changes = shared.changes.subscribe();
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    let end = Instant::now() + watch.lasts;
    while Instant::now() < end {
        changes.mark_unchanged();
        let events = news(&shared.objects(), &mut watch);
        if let (Mood::Lagging(time), false) = (mood, events.is_empty()) {
            tokio::time::sleep(*time).await;
        }
        for event in events {
            let event = if *mood == Mood::Lying { serde_json::json!({"type": "ADDED"}) } else { event };
            chunk(stream, format!("{event}\n").as_bytes()).await?;
        }
        if watch.is_over {
            break;
        }
        if timeout_at(end.min(Instant::now() + BOOKMARK), changes.changed()).await.is_err() {
            let bookmark = watch.bookmark();
            chunk(stream, format!("{bookmark}\n").as_bytes()).await?;
        }
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.flush().await
}

async fn chunk(stream: &mut TlsStream<TcpStream>, bytes: &[u8]) -> std::io::Result<()> {
    stream.write_all(format!("{:x}\r\n", bytes.len()).as_bytes()).await?;
    stream.write_all(bytes).await?;
    stream.write_all(b"\r\n").await?;
    stream.flush().await
}

fn news(objects: &Objects, watch: &mut Watch) -> Vec<Value> {
    if watch.since < objects.forgotten {
        watch.is_over = true;
        let gone = status(&(410, "Expired", format!("too old resource version: {}", watch.since)));
        return vec![serde_json::json!({"type": "ERROR", "object": gone})];
    }
    let news = objects.history.iter().filter(|event| event.version > watch.since && event.resource == watch.resource);
    let news = news.filter(|event| watch.only.as_ref().is_none_or(|only| event.object["metadata"]["name"] == **only));
    let events = news.map(|event| serde_json::json!({"type": event.what, "object": event.object})).collect();
    watch.since = watch.since.max(objects.version);
    events
}

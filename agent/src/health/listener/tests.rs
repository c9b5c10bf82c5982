//! Real sockets on the loopback; the control plane's end of the channel is played by the test.

use std::sync::Weak;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use super::*;
use crate::health::{Ask, Check, Observation, Vitals};

/// Longer than anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

const BOTH: Serves = Serves { probes: true, metrics: true };

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, test);
}

fn ready() -> Option<Observation> {
    Some(Observation { checks: vec![Check::new("guard", None)], ..Observation::default() })
}

fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
    listener.local_addr().expect("it is bound")
}

/// `observation` is what the control plane sees; without one there is no control plane.
fn serve(address: SocketAddr, serves: Serves, observation: Option<Observation>) -> Troubles {
    let (control, mut asked) = mpsc::channel::<Ask>(1);
    tokio::task::spawn_local(async move {
        let Some(observation) = observation.map(Arc::new) else { return };
        while let Some(ask) = asked.recv().await {
            let _ = ask.send(Arc::clone(&observation));
        }
    });
    let answers = Answers::new(Arc::new(Vitals::new()), Weak::new(), control, true);
    let troubles = Troubles::default();
    tokio::task::spawn_local(listen(address, serves, Rc::new(answers), troubles.clone()));
    troubles
}

async fn connect(address: SocketAddr) -> TcpStream {
    let began = Instant::now();
    loop {
        match TcpStream::connect(address).await {
            Ok(stream) => return stream,
            Err(error) => assert!(began.elapsed() < PATIENCE, "{address}: {error}"),
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Everything that comes until the other end hangs up.
async fn rest(mut stream: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed");
    String::from_utf8_lossy(&answer).into_owned()
}

async fn ask(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = connect(address).await;
    // Who says too much may find the connection closed.
    let _ = stream.write_all(bytes).await;
    rest(stream).await
}

async fn request(address: SocketAddr, method: &str, path: &str) -> String {
    ask(address, format!("{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await
}

#[test]
fn each_address_answers_its_own_paths_and_no_other() {
    run(async {
        let (probes, metrics) = (free_address(), free_address());
        serve(probes, Serves { probes: true, metrics: false }, ready());
        serve(metrics, Serves { probes: false, metrics: true }, ready());
        assert!(request(probes, "GET", "/readyz").await.starts_with("HTTP/1.1 200 "));
        assert!(request(metrics, "GET", "/metrics").await.starts_with("HTTP/1.1 200 "));
        for (address, path) in
            [(probes, "/metrics"), (metrics, "/livez"), (metrics, "/readyz"), (probes, "/"), (probes, "/readyz/")]
        {
            assert!(request(address, "GET", path).await.starts_with("HTTP/1.1 404 "), "{path}");
        }
    });
}

#[test]
fn nothing_but_get_and_head_is_answered_and_a_head_has_no_body() {
    run(async {
        let address = free_address();
        serve(address, BOTH, ready());
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
            let answer = request(address, method, "/metrics").await;
            assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("allow: GET, HEAD\r\n"), "{answer}");
        }
        let answer = request(address, "HEAD", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n"), "{answer}");
        let answer = ask(address, b"GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nxx").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "a body is not waited for: {answer}");
    });
}

#[test]
fn probes_say_what_fails_and_more_only_to_who_wants_it() {
    run(async {
        let (well, ill) = (free_address(), free_address());
        serve(well, BOTH, ready());
        let failing = Observation { checks: vec![Check::new("guard", Some("gone".into()))], ..Observation::default() };
        serve(ill, BOTH, Some(failing));
        assert!(request(well, "GET", "/readyz").await.ends_with("\r\n\r\nok\n"));
        for query in ["verbose", "verbose=1", "x=y&verbose"] {
            let answer = request(well, "GET", &format!("/readyz?{query}")).await;
            assert!(answer.ends_with("\r\n\r\n[+]guard ok\nreadyz check passed\n"), "{answer}");
        }
        let answer = request(ill, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n[-]guard failed: gone\nreadyz check failed\n"), "{answer}");
    });
}

#[test]
fn who_cannot_ask_anybody_says_so() {
    run(async {
        let address = free_address();
        serve(address, BOTH, None);
        let answer = request(address, "GET", "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("[-]control failed"), "{answer}");
        assert!(request(address, "GET", "/metrics").await.starts_with("HTTP/1.1 503 "));
        // There is no data path in this test.
        let answer = request(address, "GET", "/livez").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("[+]control ok\n[-]threads failed: the data path has stopped"), "{answer}");
    });
}

#[test]
fn metrics_are_named_for_what_they_are() {
    run(async {
        let address = free_address();
        serve(address, BOTH, ready());
        let answer = request(address, "GET", "/metrics").await;
        assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"));
        assert!(answer.ends_with("# EOF\n"), "{answer}");
    });
}

#[test]
fn what_is_too_large_or_no_http_is_refused() {
    run(async {
        let address = free_address();
        serve(address, BOTH, ready());
        let head = |headers: &str| format!("GET /readyz HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        let long = head(&format!("X: {}\r\n", "x".repeat(9 << 10)));
        assert!(ask(address, long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        let many = head(&"X: x\r\n".repeat(HEADERS + 1));
        assert!(ask(address, many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        let endless = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20));
        for bytes in
            [endless.as_bytes(), b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\0\r\n\r\n"]
        {
            let answer = ask(address, bytes).await;
            assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
        }
        assert!(request(address, "GET", "/readyz").await.starts_with("HTTP/1.1 200 "), "it goes on");
    });
}

#[test]
fn one_who_asks_a_byte_at_a_time_is_sent_away() {
    run(async {
        let address = free_address();
        serve(address, BOTH, ready());
        let mut slow = connect(address).await;
        let began = Instant::now();
        let mut request = b"GET /readyz HTTP/1.1\r\nX: ".iter().copied().chain(std::iter::repeat(b'x'));
        loop {
            let byte = request.next().expect("it is endless");
            if slow.write_all(&[byte]).await.is_err() {
                break;
            }
            assert!(began.elapsed() < PATIENCE, "it is still listened to");
            sleep(Duration::from_millis(50)).await;
        }
        assert!(began.elapsed() >= ASKING / 2, "it had no time to ask");
    });
}

#[test]
fn the_silent_keep_nobody_out_however_many_they_are() {
    run(async {
        let address = free_address();
        serve(address, BOTH, ready());
        let mut silent = Vec::new();
        for _ in 0..3 * CONNECTIONS {
            silent.push(connect(address).await);
        }
        let began = Instant::now();
        assert!(request(address, "GET", "/readyz").await.starts_with("HTTP/1.1 200 "));
        assert!(began.elapsed() < ASKING, "it was kept waiting for {:?}", began.elapsed());
    });
}

#[test]
fn an_address_that_is_taken_is_a_trouble_until_it_is_free() {
    run(async {
        let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("the loopback has ports");
        let address = holder.local_addr().expect("it is bound");
        let troubles = serve(address, Serves { probes: false, metrics: true }, ready());
        let began = Instant::now();
        while troubles.all().is_empty() {
            assert!(began.elapsed() < PATIENCE, "nobody notices");
            sleep(Duration::from_millis(10)).await;
        }
        let said = troubles.all().concat();
        let words = ["metrics are not answered", &address.to_string(), "another program has it", "metrics.listen"];
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
        drop(holder);
        assert!(request(address, "GET", "/metrics").await.starts_with("HTTP/1.1 200 "));
        assert!(troubles.all().is_empty());
    });
}

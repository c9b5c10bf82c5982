//! A relay between a node and its store. It can be cut, so that connections break and none can be made, and it can be
//! silent, so that connections stay and nothing passes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    Cut,
    Silent,
}

pub(crate) struct Relay {
    port: u16,
    way: Rc<Cell<Way>>,
}

impl Relay {
    /// Must be called on a `LocalSet`.
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let way = Rc::new(Cell::new(Way::Open));
        let held = Rc::clone(&way);
        tokio::task::spawn_local(async move {
            while let Ok((near, _)) = listener.accept().await {
                if held.get() == Way::Cut {
                    continue;
                }
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                let (near, far) = (near.into_split(), far.into_split());
                tokio::task::spawn_local(pass(near.0, far.1, Rc::clone(&held)));
                tokio::task::spawn_local(pass(far.0, near.1, Rc::clone(&held)));
            }
        });
        Self { port, way }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(crate) fn cut(&self) {
        self.way.set(Way::Cut);
    }

    pub(crate) fn silence(&self) {
        self.way.set(Way::Silent);
    }

    pub(crate) fn heal(&self) {
        self.way.set(Way::Open);
    }
}

async fn pass(mut from: tcp::OwnedReadHalf, mut to: tcp::OwnedWriteHalf, way: Rc<Cell<Way>>) {
    let mut buffer = vec![0; 64 << 10];
    let mut was_silent = false;
    loop {
        let read = tokio::time::timeout(Duration::from_millis(20), from.read(&mut buffer)).await;
        was_silent |= way.get() == Way::Silent;
        // What was silent once has lost bytes and is no connection any more.
        if way.get() == Way::Cut || was_silent && way.get() == Way::Open {
            return;
        }
        match read {
            Err(_) => {}
            Ok(Ok(length)) if length > 0 => {
                if !was_silent && to.write_all(buffer.get(..length).unwrap_or_default()).await.is_err() {
                    return;
                }
            }
            Ok(_) => return,
        }
    }
}

//! The wait between two attempts to reach a store.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use warren_overlay::record::Record;

/// Between two attempts while the node is to leave: that cannot wait for long, and must not keep a core busy either.
const LEAVING: Duration = Duration::from_secs(1);

/// Waits for this long; `has_published`: only until the node is to leave, and for no longer than a second when it is.
pub(super) async fn rest(publish: &mut watch::Receiver<Option<Record>>, has_published: bool, pause: Duration) {
    if !has_published {
        return sleep(pause).await;
    }
    if publish.borrow().is_none() {
        return sleep(LEAVING).await;
    }
    let is_closed = timeout(pause, publish.wait_for(Option::is_none)).await.is_ok_and(|found| found.is_err());
    if is_closed {
        sleep(LEAVING).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// How long it rests; `None` for longer than a test waits.
    fn rested(publish: Option<Record>, has_published: bool, pause: Duration) -> Option<Duration> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (began, (control, mut publish)) = (Instant::now(), watch::channel(publish));
            let rests = timeout(Duration::from_secs(5), rest(&mut publish, has_published, pause)).await;
            drop(control);
            rests.ok().map(|()| began.elapsed())
        })
    }

    #[test]
    fn a_node_that_is_to_leave_waits_for_a_second_and_not_for_nothing() {
        let long = Duration::from_secs(60);
        assert!(rested(None, true, long).is_some_and(|time| time >= LEAVING));
        assert!(rested(None, true, Duration::ZERO).is_some_and(|time| time >= LEAVING));
    }

    #[test]
    fn a_node_that_has_yet_to_publish_waits_as_long_as_it_should() {
        let short = Duration::from_millis(50);
        assert!(rested(None, false, short).is_some_and(|time| time >= short && time < LEAVING));
    }
}

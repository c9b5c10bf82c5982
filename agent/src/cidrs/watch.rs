//! Looks again and again, and tells when the files say something else. CNIs replace their files: places are watched.

use std::time::Duration;

use tokio::sync::mpsc;

use super::{Found, Where, look};
use crate::registry::Event;

/// How often.
const LOOK: Duration = Duration::from_secs(1);

/// Watches until the control plane is gone; `said` is what it knows already.
pub async fn run(place: Where, mut said: Result<Found, String>, events: mpsc::Sender<Event>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let now = look(&place);
        if now != said {
            said.clone_from(&now);
            if events.send(Event::Cidrs(now)).await.is_err() {
                return;
            }
        }
    }
}

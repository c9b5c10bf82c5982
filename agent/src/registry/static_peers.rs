//! The static registry: `[[peer]]` of the configuration file, read again whenever the file changes.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::{Event, Health};
use crate::config;

/// How often the file is looked at. Editors replace files, so the path is watched, not the file.
const LOOK: Duration = Duration::from_secs(1);

/// Watches the file until the control plane is gone.
pub async fn run(path: PathBuf, events: mpsc::Sender<Event>) {
    let mut seen = stamp(&path);
    let mut well = true;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamp(&path);
        if now == seen {
            continue;
        }
        seen = now;
        let (news, detail) = match config::load(&path) {
            Ok(config) => {
                let peers = config.static_peers();
                tracing::info!(file = %path.display(), peers = peers.len(), "the configuration's peers were read again");
                (Some(Event::Static(peers)), None)
            }
            Err(error) => (None, Some(format!("{error}; the peers stay as they were"))),
        };
        let was_well = std::mem::replace(&mut well, detail.is_none());
        let health = Health {
            registry: "static",
            ok: well,
            detail: detail.unwrap_or_else(|| format!("{} was read again", path.display())),
        };
        if (!well || !was_well) && events.send(Event::Health(health)).await.is_err() {
            return;
        }
        if let Some(event) = news
            && events.send(event).await.is_err()
        {
            return;
        }
    }
}

/// Changes when the content may have.
fn stamp(path: &Path) -> Option<(SystemTime, u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

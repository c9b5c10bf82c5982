//! When a handshake may be started again.
//!
//! boringtun repeats an initiation every five seconds for ninety seconds and then gives up for good. What follows is
//! decided here: at most one initiation in five seconds, and between two series that nobody answered a pause that
//! doubles from one second to a minute. Pure: time comes in as the age of the tunnel.

use std::time::Duration;

/// Between two initiations (WireGuard's `Rekey-Timeout`); up to a third of a second of jitter comes on top.
const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Jitter on top of [`REKEY_TIMEOUT`], in milliseconds (kernel `REKEY_TIMEOUT_JITTER_MAX_JIFFIES`).
const REKEY_JITTER_MS: u64 = 333;
/// How long boringtun repeats an initiation (WireGuard's `Rekey-Attempt-Time`).
const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// After a response of ours: the peer confirms the session at once, an initiation would only cross it.
const CONFIRM_TIME: Duration = Duration::from_secs(1);
/// The longest pause between two series of initiations, in milliseconds.
const PAUSE_MAX_MS: u64 = 60_000;

/// The pace of one tunnel's handshakes.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    not_before: Duration,
    /// When the series under way began.
    series: Option<Duration>,
    /// Series in a row that nobody answered.
    failures: u32,
    /// Somebody asked for a session and none was started for it yet.
    wanted: bool,
}

impl Pacing {
    /// There is traffic without a session.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Boringtun repeats the initiation by itself: nothing more to start.
    pub(super) fn under_way(&mut self) {
        self.wanted = false;
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    pub(super) fn allows(&self, now: Duration) -> bool {
        now >= self.not_before
    }

    /// An initiation was sent.
    pub(super) fn initiated(&mut self, now: Duration, jitter: u32) {
        self.series.get_or_insert(now);
        self.wanted = false;
        let jitter = Duration::from_millis(u64::from(jitter) % (REKEY_JITTER_MS + 1));
        self.delay(now + REKEY_TIMEOUT + jitter);
    }

    /// A response was sent: the session stands as soon as the peer uses it.
    pub(super) fn responded(&mut self, now: Duration) {
        self.delay(now + CONFIRM_TIME);
    }

    /// A session stands: the peer has proven that it holds the keys.
    pub(super) fn confirmed(&mut self) {
        let not_before = self.not_before;
        *self = Self { not_before, ..Self::default() };
    }

    /// Boringtun gave up, for want of an answer or of traffic.
    pub(super) fn expired(&mut self, now: Duration, jitter: u32) {
        let Some(began) = self.series.take() else {
            return;
        };
        // Boringtun also forgets a series that began just before nine minutes of silence were over.
        self.wanted |= now.saturating_sub(began) < REKEY_ATTEMPT_TIME;
        self.delay(now + pause(self.failures, jitter));
        self.failures = self.failures.saturating_add(1);
    }

    fn delay(&mut self, until: Duration) {
        self.not_before = self.not_before.max(until);
    }
}

/// One second, doubled for every failure, up to a minute; between half and all of that, by `jitter`.
fn pause(failures: u32, jitter: u32) -> Duration {
    let whole = PAUSE_MAX_MS.min(1_000 << failures.min(6));
    Duration::from_millis(whole - u64::from(jitter) % (whole / 2 + 1))
}

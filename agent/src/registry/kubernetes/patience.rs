//! With requests that a server does not answer now and may well answer in a moment: how often they are made again, and when.

use std::time::Duration;

use super::Fault;
use crate::registry::jitter;

/// So often in a row; then the connection ends, and the next one may reach another server behind the same address.
const TRIES: u32 = 4;
/// Before the first of them; doubled with each, and never less than what the server asks for. Each with jitter.
const PAUSE: Duration = Duration::from_secs(1);

/// How often one follower has been put off in a row.
#[derive(Debug, Default)]
pub(super) struct Patience {
    tries: u32,
}

impl Patience {
    /// How long to wait before the request is made again; `None` when that is of no use.
    pub(super) fn with(&mut self, fault: &Fault) -> Option<Duration> {
        if !fault.may_pass() || self.tries >= TRIES {
            return None;
        }
        let pause = (PAUSE * 2_u32.pow(self.tries)).max(fault.wait().unwrap_or_default());
        self.tries += 1;
        Some(pause + jitter(pause))
    }

    /// It went on; whether it had to be waited for.
    pub(super) fn renew(&mut self) -> bool {
        std::mem::take(&mut self.tries) > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(wait: Option<Duration>) -> Fault {
        Fault::Said { code: 429, said: String::new(), wait }
    }

    #[test]
    fn a_server_that_is_busy_is_asked_again_ever_later_and_not_for_ever() {
        let mut patience = Patience::default();
        for seconds in [1, 2, 4, 8] {
            let (least, waits) = (Duration::from_secs(seconds), patience.with(&busy(None)).unwrap());
            assert!(waits >= least && waits <= least * 3 / 2, "{waits:?}");
        }
        assert_eq!(patience.with(&busy(None)), None);
        assert!(patience.renew() && !patience.renew() && patience.with(&busy(None)).is_some());
    }

    #[test]
    fn what_a_server_asks_for_is_granted() {
        let long = Duration::from_secs(30);
        assert!(Patience::default().with(&busy(Some(long))).unwrap() >= long);
    }

    #[test]
    fn what_does_not_pass_ends_the_connection_at_once() {
        for fault in [Fault::said(401, String::new()), Fault::Nonsense("x"), Fault::Local(String::new()), Fault::Large]
        {
            assert_eq!(Patience::default().with(&fault), None, "{fault}");
        }
    }
}

//! One agent of the exchange: what it told its workers, as they would keep it.

use std::collections::BTreeMap;

use warren_crypto::association::{AssociationKey, Receiver, Sender, Suite};
use warren_crypto::exchange::{End, Ends, Exchange};

use super::terms;

/// What the first packet of a key looks like: equal for equal keys, and says nothing else.
pub(super) type Likeness = Vec<u8>;

/// One agent.
pub(super) struct Side {
    pub(super) exchange: Exchange,
    pub(super) boot: u64,
    pub(super) receivers: BTreeMap<u32, (u64, Receiver)>,
    pub(super) senders: Vec<Sender>,
    /// The generation of the senders.
    pub(super) sending: u64,
    /// Receivers that the workers have yet to make.
    pub(super) installing: Option<u64>,
    /// The generation that is neither complete nor given up.
    pub(super) pending: Option<u64>,
}

impl Side {
    pub(super) fn new(which: usize, boot: u64) -> Self {
        Self {
            exchange: Exchange::new(terms(which, boot)),
            boot,
            receivers: BTreeMap::new(),
            senders: Vec::new(),
            sending: 0,
            installing: None,
            pending: None,
        }
    }

    /// New receivers; their likenesses.
    pub(super) fn receive_on(&mut self, Ends { generation, suite, ends }: Ends) -> Vec<Likeness> {
        assert_eq!(self.pending.replace(generation), None, "two generations under way");
        self.installing = Some(generation);
        let mut likenesses = Vec::new();
        for End { index, key, .. } in ends {
            likenesses.push(likeness(suite, &key));
            let before = self.receivers.insert(index, (generation, Receiver::new(suite, &key, index)));
            assert!(before.is_none(), "two keys for one index");
        }
        likenesses
    }

    /// New senders; their likenesses.
    pub(super) fn send_on(&mut self, Ends { generation, suite, ends }: Ends, reborn: bool) -> Vec<Likeness> {
        assert_eq!(self.pending.take(), Some(generation), "sends on what is not under way");
        assert_eq!(self.installing, None, "sends before its receivers are ready");
        if reborn {
            self.receivers.retain(|_, (of, _)| *of == generation);
        }
        self.sending = generation;
        let likenesses = ends.iter().map(|end| likeness(suite, &end.key)).collect();
        self.senders = ends.into_iter().map(|End { index, key, .. }| Sender::new(suite, &key, index)).collect();
        likenesses
    }

    pub(super) fn abandon(&mut self, generation: u64) {
        self.receivers.retain(|_, (of, _)| *of != generation);
        self.pending.take_if(|of| *of == generation);
        self.installing.take_if(|of| *of == generation);
        if self.sending == generation {
            self.senders.clear();
        }
    }

    pub(super) fn purge(&mut self) {
        self.receivers.clear();
        self.senders.clear();
        (self.installing, self.pending) = (None, None);
    }
}

fn likeness(suite: Suite, key: &AssociationKey) -> Likeness {
    let mut likeness = vec![0; 48];
    Sender::new(suite, key, 0).seal(&[0; 16], &mut likeness).unwrap();
    likeness
}

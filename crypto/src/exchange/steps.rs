//! The steps of one exchange: Offer, Answer, Confirm, Ack. Secrets live as long as the step that needs them.

use super::frame::{self, Answer, MAC, Offer, with_mac};
use super::schedule::{Direction, Purpose, Schedule, Statics, agree};
use super::{Chance, End, Ends, Refusal, Terms, Zeroizing, kem};
use crate::association::Suite;

/// The initiator's secrets between Offer and Answer.
#[cfg_attr(feature = "model", derive(Clone))]
pub(super) struct Offered {
    ephemeral: Zeroizing<[u8; 32]>,
    kem: kem::DecapsulationKey,
}

/// What both know once the Answer is made.
#[cfg_attr(feature = "model", derive(Clone))]
pub(super) struct Agreed {
    schedule: Schedule,
    suite: Suite,
    peer_boot: u64,
    /// The direction in which this node sends.
    sends: Direction,
    /// This node's sending workers.
    workers: u16,
    /// The receivers that the peer names for them; the responder learns them by the Confirm.
    indices: Vec<u32>,
    th2: [u8; 32],
}

/// An Answer as it came.
pub(super) struct Seen<'f> {
    pub(super) answer: &'f Answer,
    /// Without its MAC.
    pub(super) bytes: &'f [u8],
    pub(super) mac: &'f [u8; MAC],
}

impl Offered {
    /// Begins: the secrets and the frame.
    pub(super) fn new(terms: &Terms, number: u64, chance: &mut impl Chance) -> (Self, Vec<u8>) {
        let (mut ephemeral, mut random, mut nonce) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 64]), [0; 32]);
        chance.fill(&mut *ephemeral);
        chance.fill(&mut *random);
        chance.fill(&mut nonce);
        let (secret, public) = kem::generate(&random);
        let offer = Offer {
            number,
            boot: terms.boot,
            nonce,
            workers: terms.workers,
            suites: terms.suites.iter().map(|suite| suite.number()).collect(),
            ephemeral: public_of(&ephemeral),
            kem: public,
        };
        (Self { ephemeral, kem: secret }, offer.to_bytes())
    }

    /// Judges the Answer and makes the Confirm.
    pub(super) fn confirm(
        &self,
        terms: &Terms,
        offer: &[u8],
        seen: &Seen<'_>,
        generation: u64,
        chance: &mut impl Chance,
    ) -> Result<(Agreed, Vec<u8>, Ends), Refusal> {
        let answer = seen.answer;
        let suite = Suite::by_number(answer.suite).filter(|suite| terms.suites.contains(suite));
        let suite = suite.ok_or(Refusal::Suite)?;
        let s1 = agree(&self.ephemeral, &answer.ephemeral).ok_or(Refusal::WeakKey)?;
        let s2 = self.kem.decapsulate(&answer.kem).ok_or(Refusal::WeakKey)?;
        let schedule = Schedule::new(&statics(terms, true), (&s1, &s2), (offer, seen.bytes)).ok_or(Refusal::WeakKey)?;
        // Checked before anything else of the Answer is believed.
        if !schedule.answer_verifies(seen.mac) || answer.indices.len() != usize::from(terms.workers) {
            return Err(Refusal::Forged);
        }
        let ends = receivers(&schedule, suite, Direction::FromResponder, answer.workers, generation, chance);
        let indices: Vec<_> = ends.ends.iter().map(|end| end.index).collect();
        let confirm = frame::confirm(answer.number, &indices);
        let th2 = schedule.th2(&confirm);
        let mac = schedule.mac(Purpose::Confirm, &th2);
        let agreed = Agreed {
            schedule,
            suite,
            peer_boot: answer.boot,
            sends: Direction::FromInitiator,
            workers: terms.workers,
            indices: answer.indices.clone(),
            th2,
        };
        Ok((agreed, with_mac(confirm, mac), ends))
    }
}

/// The responder's whole part between Offer and Answer.
pub(super) fn answer(
    terms: &Terms,
    offer: &Offer,
    bytes: &[u8],
    generation: u64,
    chance: &mut impl Chance,
) -> Result<(Agreed, Vec<u8>, Ends), Refusal> {
    let suite = choose(&terms.suites, &offer.suites).ok_or(Refusal::Suite)?;
    let (mut ephemeral, mut random, mut nonce) = (Zeroizing::new([0; 32]), Zeroizing::new([0; 32]), [0; 32]);
    chance.fill(&mut *ephemeral);
    chance.fill(&mut *random);
    chance.fill(&mut nonce);
    let s1 = agree(&ephemeral, &offer.ephemeral).ok_or(Refusal::WeakKey)?;
    let (s2, ciphertext) = kem::encapsulate(&offer.kem, &random).ok_or(Refusal::WeakKey)?;
    let indices: Vec<_> = (0..offer.workers).map(|lane| chance.index(lane)).collect();
    let answer = Answer {
        number: offer.number,
        boot: terms.boot,
        nonce,
        workers: terms.workers,
        suite: suite.number(),
        ephemeral: public_of(&ephemeral),
        kem: ciphertext,
        indices,
    };
    let reply = answer.to_bytes();
    let schedule = Schedule::new(&statics(terms, false), (&s1, &s2), (bytes, &reply)).ok_or(Refusal::WeakKey)?;
    let ends = ends(&schedule, suite, Direction::FromInitiator, &answer.indices, generation);
    let mac = schedule.answer_mac();
    let agreed = Agreed {
        schedule,
        suite,
        peer_boot: offer.boot,
        sends: Direction::FromResponder,
        workers: terms.workers,
        indices: Vec::new(),
        th2: [0; 32],
    };
    Ok((agreed, with_mac(reply, mac), ends))
}

/// The suite that is best for the end for which it is worse; ChaCha20-Poly1305, which is slow nowhere, between equals.
fn choose(own: &[Suite], offered: &[u16]) -> Option<Suite> {
    let rank = |suite: &Suite| {
        let own = own.iter().position(|one| one == suite)?;
        let offered = offered.iter().position(|number| *number == suite.number())?;
        Some((own.max(offered), *suite != Suite::ChaCha20Poly1305))
    };
    Suite::ALL.into_iter().filter_map(|suite| Some((rank(&suite)?, suite))).min().map(|(_, suite)| suite)
}

impl Agreed {
    /// The responder judges the Confirm and makes the Ack.
    pub(super) fn take_confirm(
        &mut self,
        number: u64,
        indices: &[u32],
        confirm: &[u8],
        mac: &[u8; MAC],
    ) -> Result<Vec<u8>, Refusal> {
        let th2 = self.schedule.th2(confirm);
        if !self.schedule.verifies(Purpose::Confirm, &th2, mac) || indices.len() != usize::from(self.workers) {
            return Err(Refusal::Forged);
        }
        self.indices = indices.to_vec();
        Ok(with_mac(frame::ack(number), self.schedule.mac(Purpose::Ack, &th2)))
    }

    pub(super) fn check_ack(&self, mac: &[u8; MAC]) -> Result<(), Refusal> {
        self.schedule.verifies(Purpose::Ack, &self.th2, mac).then_some(()).ok_or(Refusal::Forged)
    }

    /// A Close that only the two ends can make.
    pub(super) fn close(&self, number: u64) -> Vec<u8> {
        with_mac(frame::close(number), self.schedule.mac(Purpose::Close, &number.to_le_bytes()))
    }

    pub(super) fn check_close(&self, number: u64, mac: &[u8; MAC]) -> Result<(), Refusal> {
        let verifies = self.schedule.verifies(Purpose::Close, &number.to_le_bytes(), mac);
        verifies.then_some(()).ok_or(Refusal::Forged)
    }

    pub(super) fn peer_boot(&self) -> u64 {
        self.peer_boot
    }

    /// The sending ends; the secrets end here.
    pub(super) fn into_senders(self, generation: u64) -> Ends {
        ends(&self.schedule, self.suite, self.sends, &self.indices, generation)
    }
}

fn receivers(
    schedule: &Schedule,
    suite: Suite,
    direction: Direction,
    lanes: u16,
    generation: u64,
    chance: &mut impl Chance,
) -> Ends {
    let indices: Vec<_> = (0..lanes).map(|lane| chance.index(lane)).collect();
    ends(schedule, suite, direction, &indices, generation)
}

fn ends(schedule: &Schedule, suite: Suite, direction: Direction, indices: &[u32], generation: u64) -> Ends {
    let end =
        |(lane, index): (u16, &u32)| End { lane, index: *index, key: schedule.association(direction, lane, suite) };
    Ends { generation, suite, ends: (0..).zip(indices).map(end).collect() }
}

fn statics(terms: &Terms, initiator: bool) -> Statics<'_> {
    Statics { own: &terms.own, peer: &terms.peer, psk: terms.preshared_key.as_ref(), initiator }
}

fn public_of(private: &[u8; 32]) -> [u8; 32] {
    x25519_dalek::PublicKey::from(&x25519_dalek::StaticSecret::from(*private)).to_bytes()
}

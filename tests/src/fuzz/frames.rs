//! Control frames: cutting them into packets and putting them together again against a plain model, and reading what the
//! exchange is given. The first byte of the input says which.

use std::time::Duration;

use warren_crypto::exchange::{self, Action, Exchange, FRAME_MAX, Probe};
use warren_overlay::frame::{self, Assembly, Kind, PACKET_MAX};
use warren_overlay::packet::View;

use super::exchange::{Dice, act_name, terms};
use super::{Feed, Seen};

/// Headers before a part, bytes of a part, parts of a frame: as docs/protocol.md says.
const HEADERS: usize = 52;
const PART: usize = 1200;
const PARTS_MAX: usize = 4;

/// The body.
pub(super) fn run(input: &[u8], seen: &mut Seen) {
    let mut feed = Feed::new(input);
    match feed.byte() % 3 {
        0 => assemble(&mut feed, seen),
        1 => altered(&mut feed, seen),
        _ => arbitrary(&mut feed, seen),
    }
}

/// The plainest way to put parts together: one frame at a time, the newest.
#[derive(Default)]
struct Model {
    number: u16,
    parts: Vec<Option<Vec<u8>>>,
}

impl Model {
    fn take(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let (header, body) = packet.get(HEADERS - 4..)?.split_at_checked(4)?;
        let number = u16::from_le_bytes([header[0], header[1]]);
        let (part, parts) = (usize::from(header[2]), usize::from(header[3]));
        if body.is_empty() || body.len() > PART || part >= parts || parts > PARTS_MAX {
            return None;
        }
        if number != self.number || parts != self.parts.len() {
            *self = Self { number, parts: vec![None; parts] };
        }
        self.parts[part] = Some(body.to_vec());
        if self.parts.iter().any(Option::is_none) {
            return None;
        }
        Some(std::mem::take(&mut self.parts).into_iter().flatten().flatten().collect())
    }
}

fn assemble(feed: &mut Feed<'_>, seen: &mut Seen) {
    let (mut assembly, mut model) = (Assembly::default(), Model::default());
    while !feed.is_empty() {
        let packet = match feed.byte() % 4 {
            0 => feed.bytes().to_vec(),
            1 => {
                let mut packet = written(feed);
                let (at, by) = (HEADERS - 4 + feed.below(packet.len().saturating_sub(HEADERS - 4)), feed.byte());
                packet.get_mut(at).into_iter().for_each(|byte| *byte ^= by);
                packet
            }
            _ => written(feed),
        };
        if let Ok(view) = View::parse(&packet) {
            seen.note(format!("{:?}", frame::kind(&packet, &view)));
        }
        let alone = Assembly::default().take(&packet);
        assert_eq!(frame::whole(&packet).map(<[u8]>::to_vec), alone, "the frame that this packet is by itself");
        let whole = assembly.take(&packet);
        assert_eq!(whole, model.take(&packet), "the frame that these parts make");
        seen.note(
            whole.map_or("no frame yet".into(), |whole| format!("a frame of {} parts", whole.len().div_ceil(PART))),
        );
    }
}

/// A packet as an agent writes it.
fn written(feed: &mut Feed<'_>) -> Vec<u8> {
    let (number, len, part) = (u16::from(feed.byte() % 3), feed.below(PARTS_MAX * PART + 2), feed.below(PARTS_MAX + 1));
    let whole: Vec<u8> = (0..len).map(|at| (at % 251) as u8 ^ number as u8).collect();
    let mut out = [0; PACKET_MAX];
    let Some(written) = frame::write(number, &whole, part, &mut out) else {
        assert!(len > PARTS_MAX * PART || part >= len.div_ceil(PART), "part {part} of {len} bytes was not written");
        return Vec::new();
    };
    let packet = &out[..written];
    assert_eq!(packet[HEADERS..], whole[part * PART..len.min((part + 1) * PART)]);
    assert_eq!(View::parse(packet).map(|view| frame::kind(packet, &view)), Ok(Kind::Frame));
    packet.to_vec()
}

/// The initiator and the responder of an exchange that stands at the given step, and the frame that is next: 0 the
/// Offer, 1 the Answer, 2 the Confirm, 3 the Ack.
fn stopped_at(step: usize, dice: &mut Dice) -> (Exchange, Vec<u8>) {
    let mut ends = [0, 1].map(|which| Exchange::new(terms(which, 1)));
    let mut to = usize::from(ends[0].is_initiator());
    let Some(Action::Send(mut frame)) = ends[1 - to].want(NOW, dice) else { panic!("no Offer") };
    for _ in 0..step {
        let actions = ends[to].take(&frame, NOW, dice).unwrap();
        let installing = actions.iter().find_map(|action| match action {
            Action::Receive(ends) => Some(ends.generation),
            _ => None,
        });
        let reply = installing.and_then(|generation| ends[to].installed(generation, NOW));
        let sent = reply.into_iter().chain(actions).find_map(|action| match action {
            Action::Send(frame) => Some(frame),
            _ => None,
        });
        frame = sent.expect("a reply");
        to = 1 - to;
    }
    let [first, second] = ends;
    (if to == 0 { first } else { second }, frame)
}

const NOW: Duration = Duration::from_secs(100);

/// A real frame with a few changes completes nothing, at whichever step it comes; and the real one still does.
fn altered(feed: &mut Feed<'_>, seen: &mut Seen) {
    let (step, mut dice) = (feed.below(4), Dice::new(feed.byte().into()));
    let (mut end, real) = stopped_at(step, &mut dice);
    let mut frame = real.clone();
    for _ in 0..1 + feed.below(4) {
        match feed.byte() % 4 {
            0 => frame.truncate(feed.below(frame.len() + 1)),
            1 => frame.extend_from_slice(feed.bytes()),
            _ => {
                let (at, by) = (feed.below(frame.len()), feed.byte());
                frame.get_mut(at).into_iter().for_each(|byte| *byte ^= by);
            }
        }
    }
    let outcome = end.take(&frame, NOW, &mut dice);
    if frame == real {
        seen.note("not altered");
        outcome.unwrap();
        return;
    }
    match outcome {
        Err(refusal) => seen.note(format!("step {step}: {refusal:?}")),
        Ok(actions) => judge(step, &actions, seen),
    }
    // An Offer carries no MAC: another one may have taken its place, until the Confirm shows whose it was.
    if step > 0 && !frame.starts_with(&[1, 5]) {
        let actions = end.take(&real, NOW, &mut dice).expect("the real frame, after the altered one");
        assert!(!actions.is_empty(), "the real frame had no effect after an altered one");
    }
}

fn judge(step: usize, actions: &[Action], seen: &mut Seen) {
    for action in actions {
        seen.note(format!("step {step}: {}", act_name(action)));
        match action {
            Action::Receive(_) => assert_eq!(step, 0, "an altered frame made receivers"),
            Action::SendOn { .. } => panic!("an altered frame made senders"),
            Action::Send(frame) => assert!(frame.len() <= FRAME_MAX),
            Action::Abandon(_) | Action::Purge => {}
        }
    }
}

/// Any bytes, to an end at any step. They may ask for an exchange, or say that somebody was started anew; no more.
fn arbitrary(feed: &mut Feed<'_>, seen: &mut Seen) {
    let (step, mut dice) = (feed.below(4), Dice::new(0));
    let (mut end, _) = stopped_at(step, &mut dice);
    while !feed.is_empty() {
        let mut bytes = feed.bytes().to_vec();
        if feed.byte().is_multiple_of(2) && bytes.len() >= 4 {
            // Past the first check, so that the second one is met.
            let len = (bytes.len() - 4) as u16;
            bytes[0] = 1;
            bytes[2..4].copy_from_slice(&len.to_le_bytes());
        }
        if let Some(told) = exchange::Seen::parse(&bytes) {
            seen.note(format!("told of {}", if told.probe.is_some() { "a probe" } else { "data" }));
            assert_eq!(told.to_bytes(), bytes);
        }
        if let Some(probe) = Probe::parse(&bytes) {
            seen.note("a probe");
            assert_eq!(probe.to_bytes(), bytes);
        }
        match end.take(&bytes, NOW, &mut dice) {
            Err(refusal) => seen.note(format!("arbitrary: {refusal:?}")),
            Ok(actions) => judge(9, &actions, seen),
        }
    }
}

//! The implementation against the test vectors in `vectors/`, and the vectors against a second one in Python.
//! No root.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ml_kem::kem::Decapsulate as _;
use ml_kem::{B32, Ciphertext, EncodedSizeUser as _, KemCore, MlKem768};
use serde_json::{Value, json};
use warren_crypto::PrivateKey;
use warren_crypto::association::{AssociationKey, Receiver, Sender, Suite};
use warren_crypto::exchange::{Action, Chance, Ends, Exchange, Terms};
use warren_overlay::frame::{self, Assembly, PACKET_MAX};

const NOW: Duration = Duration::from_secs(1000);
const PATIENCE: Duration = Duration::from_secs(15);

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

fn vectors(file: &str) -> Vec<Value> {
    let path = folder().join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let whole: Value = serde_json::from_str(&text).unwrap();
    whole["vectors"].as_array().unwrap().clone()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn suite(value: &Value) -> Suite {
    Suite::by_name(value.as_str().unwrap()).unwrap()
}

/// What a vector says was drawn, in its order.
struct Script {
    draws: VecDeque<Vec<u8>>,
    indices: VecDeque<u32>,
}

impl Script {
    fn of(side: &Value) -> Self {
        let draws = ["ephemeral_private", "ml_kem_random", "nonce"].map(|name| bytes(&side[name]));
        let indices = side["indices"].as_array().unwrap().iter().map(|index| number(index) as u32).collect();
        Self { draws: draws.into(), indices }
    }
}

impl Chance for Script {
    fn fill(&mut self, out: &mut [u8]) {
        // Behind the secrets only the jitter of pauses is drawn.
        let drawn = self.draws.pop_front().unwrap_or_else(|| vec![0; out.len()]);
        out.copy_from_slice(&drawn);
    }

    fn index(&mut self, _: u16) -> u32 {
        self.indices.pop_front().unwrap()
    }
}

fn end(vector: &Value, own: &str, peer: &str) -> (Exchange, Script) {
    let key = |side: &str| vector[side]["static_private"].as_str().unwrap().parse::<PrivateKey>().unwrap();
    let side = &vector[own];
    let terms = Terms {
        own: key(own),
        peer: key(peer).public_key(),
        preshared_key: vector["preshared_key"].as_str().map(|text| text.parse().unwrap()),
        boot: number(&side["boot"]),
        workers: number(&side["workers"]) as u16,
        suites: side["suites"].as_array().unwrap().iter().map(suite).collect(),
    };
    (Exchange::new(terms), Script::of(side))
}

/// The frame that these actions send.
fn sent(actions: impl IntoIterator<Item = Action>) -> Vec<u8> {
    let sent = actions.into_iter().find_map(|action| if let Action::Send(frame) = action { Some(frame) } else { None });
    sent.unwrap()
}

/// Takes the frame that makes receivers; gives them, and the reply.
fn receivers((exchange, script): &mut (Exchange, Script), frame: &[u8]) -> (Ends, Vec<u8>) {
    let mut actions = exchange.take(frame, NOW, script).unwrap();
    let Some(Action::Receive(ends)) = actions.pop() else { panic!("no receivers") };
    let reply = sent(exchange.installed(ends.generation, NOW));
    (ends, reply)
}

fn senders(actions: &mut Vec<Action>) -> Ends {
    let Action::SendOn { ends, .. } = actions.remove(0) else { panic!("no senders") };
    ends
}

/// The first packet under each key, by direction and lane; both ends have the same key.
fn associations(direction: u8, senders: &Ends, receivers: &Ends) -> Vec<Value> {
    let suite = senders.suite;
    assert_eq!((suite, senders.ends.len()), (receivers.suite, receivers.ends.len()));
    let pairs = senders.ends.iter().zip(&receivers.ends);
    let one = pairs.map(|(sends, receives)| {
        let mut datagram = [0; 48];
        Sender::new(suite, &sends.key, sends.index).seal(b"sixteen bytes ok", &mut datagram).unwrap();
        let first_packet = hex(&datagram);
        let mut receiver = Receiver::new(suite, &receives.key, receives.index);
        assert_eq!(receiver.open(&mut datagram).unwrap(), b"sixteen bytes ok");
        json!({"direction": direction, "lane": sends.lane, "index": sends.index, "first_packet": first_packet})
    });
    one.collect()
}

/// What comes of a vector's inputs.
fn replay(vector: &Value) -> Value {
    let (mut initiator, mut responder) = (end(vector, "initiator", "responder"), end(vector, "responder", "initiator"));
    assert!(initiator.0.is_initiator(), "the smaller public key begins");
    let offer = sent(initiator.0.want(NOW, &mut initiator.1));
    let (to_responder, answer) = receivers(&mut responder, &offer);
    let (to_initiator, confirm) = receivers(&mut initiator, &answer);
    let mut actions = responder.0.take(&confirm, NOW, &mut responder.1).unwrap();
    let from_responder = senders(&mut actions);
    let ack = sent(actions);
    let from_initiator = senders(&mut initiator.0.take(&ack, NOW, &mut initiator.1).unwrap());
    let mut made = associations(0, &from_initiator, &to_responder);
    made.extend(associations(1, &from_responder, &to_initiator));
    // The responder of another world, whom no Confirm reaches.
    let mut left_alone = end(vector, "responder", "initiator");
    receivers(&mut left_alone, &offer);
    let close = sent(left_alone.0.tick(NOW + PATIENCE, &mut left_alone.1));
    json!({
        "suite": to_responder.suite.name(),
        "frames": {
            "offer": hex(&offer), "answer": hex(&answer), "confirm": hex(&confirm), "ack": hex(&ack),
            "close": hex(&close), "hello": hex(&initiator.0.hello()),
        },
        "associations": made,
    })
}

#[test]
fn an_exchange_makes_the_frames_and_the_keys_of_the_vectors() {
    for vector in vectors("exchange.json") {
        let (name, made) = (&vector["name"], replay(&vector));
        assert_eq!(made["suite"], vector["suite"], "{name}");
        assert_eq!(made["frames"], vector["frames"], "{name}");
        for (made, expected) in
            made["associations"].as_array().unwrap().iter().zip(vector["associations"].as_array().unwrap())
        {
            let mut expected = expected.clone();
            // The key is not to be had from an association: what it seals is.
            let key = expected.as_object_mut().unwrap().remove("key").unwrap();
            assert_eq!(*made, expected, "{name}");
            let key = AssociationKey::new(bytes(&key).try_into().unwrap());
            let mut datagram = [0; 48];
            let index = number(&expected["index"]) as u32;
            Sender::new(suite(&vector["suite"]), &key, index).seal(b"sixteen bytes ok", &mut datagram).unwrap();
            assert_eq!(hex(&datagram), expected["first_packet"], "{name}");
        }
        assert_eq!(made["associations"].as_array().unwrap().len(), vector["associations"].as_array().unwrap().len());
    }
}

#[test]
fn the_secret_that_the_vectors_give_is_what_ml_kem_gives() {
    for vector in vectors("exchange.json") {
        let seed = bytes(&vector["initiator"]["ml_kem_random"]);
        let half = |at: usize| B32::try_from(&seed[at..at + 32]).unwrap();
        let (secret, public) = MlKem768::generate_deterministic(&half(0), &half(32));
        assert!(vector["frames"]["offer"].as_str().unwrap().ends_with(&hex(&public.as_bytes())));
        let answer = bytes(&vector["frames"]["answer"]);
        let at = 4 + 8 + 8 + 32 + 2 + 2 + 32;
        let ciphertext = Ciphertext::<MlKem768>::try_from(&answer[at..at + 1088]).unwrap();
        assert_eq!(hex(&secret.decapsulate(&ciphertext).unwrap()), vector["ml_kem_shared_secret"]);
    }
}

#[test]
fn association_packets_are_those_of_the_vectors() {
    for vector in vectors("associations.json") {
        let key = AssociationKey::new(bytes(&vector["key"]).try_into().unwrap());
        let (suite, index) = (suite(&vector["suite"]), number(&vector["index"]) as u32);
        let (mut sender, mut receiver) = (Sender::new(suite, &key, index), Receiver::new(suite, &key, index));
        for packet in vector["packets"].as_array().unwrap() {
            let plaintext = bytes(&packet["plaintext"]);
            let mut datagram = vec![0; plaintext.len() + 32];
            while sender.sealed() < number(&packet["counter"]) {
                sender.seal(&plaintext, &mut datagram).unwrap();
            }
            sender.seal(&plaintext, &mut datagram).unwrap();
            assert_eq!(hex(&datagram), packet["datagram"], "{suite:?}");
            assert_eq!(receiver.open(&mut datagram).unwrap(), plaintext);
        }
    }
}

#[test]
fn control_frames_travel_in_the_packets_of_the_vectors() {
    for vector in vectors("frames.json") {
        let (whole, number) = (bytes(&vector["frame"]), number(&vector["number"]) as u16);
        let mut out = [0; PACKET_MAX];
        let write = |part| frame::write(number, &whole, part, &mut out).map(|len| hex(&out[..len]));
        let packets: Vec<_> = (0..).map_while(write).collect();
        assert_eq!(json!(packets), vector["packets"]);
        let mut assembly = Assembly::default();
        let parts = vector["packets"].as_array().unwrap().iter().map(bytes);
        assert_eq!(parts.filter_map(|packet| assembly.take(&packet)).collect::<Vec<_>>(), [whole]);
    }
}

/// Written by hand on Python's hashlib and nothing else; where there is no Python, the vectors stand alone.
#[test]
fn a_second_implementation_derives_the_same_from_the_same_inputs() {
    let Ok(run) = Command::new("python3").arg("-B").arg(folder().join("verify.py")).output() else {
        return eprintln!("python3 is missing: the vectors were not checked by a second implementation");
    };
    let said = String::from_utf8_lossy(&run.stdout) + String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{said}");
    assert!(said.contains("0 wrong"), "{said}");
}

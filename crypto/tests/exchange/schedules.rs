//! Random schedules, and random bytes.

use std::time::Duration;

use proptest::prelude::*;

use super::world::World;

#[derive(Clone, Debug)]
enum Step {
    Want(usize),
    Deliver(usize),
    Lose(usize),
    Swap(usize),
    /// Something that was sent long ago, again.
    Replay(usize, usize),
    /// The next frame with a changed byte.
    Alter(usize, usize, u8),
    Installed(usize),
    Restart(usize),
    Tick(u64),
    Heard(usize),
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0usize..2;
    prop_oneof![
        3 => who.clone().prop_map(Step::Want),
        9 => who.clone().prop_map(Step::Deliver),
        2 => who.clone().prop_map(Step::Lose),
        1 => who.clone().prop_map(Step::Swap),
        2 => (who.clone(), any::<usize>()).prop_map(|(who, at)| Step::Replay(who, at)),
        1 => (who.clone(), any::<usize>(), 1u8..).prop_map(|(who, at, by)| Step::Alter(who, at, by)),
        6 => who.clone().prop_map(Step::Installed),
        1 => who.clone().prop_map(Step::Restart),
        3 => (100u64..6000).prop_map(Step::Tick),
        1 => who.prop_map(Step::Heard),
    ]
}

fn step(world: &mut World, step: &Step) {
    match *step {
        Step::Want(who) => world.want(who),
        Step::Deliver(who) => {
            if let Some(frame) = world.wires[who].pop_front() {
                let _ = world.deliver(who, &frame);
            }
        }
        Step::Lose(who) => drop(world.wires[who].pop_front()),
        Step::Swap(who) => {
            if world.wires[who].len() > 1 {
                world.wires[who].swap(0, 1);
            }
        }
        Step::Replay(who, at) => {
            let len = world.history[who].len();
            if let Some(frame) = world.history[who].get(at % len.max(1)).cloned() {
                let _ = world.deliver(who, &frame);
            }
        }
        Step::Alter(who, at, by) => {
            if let Some(mut frame) = world.wires[who].pop_front() {
                let at = at % frame.len();
                frame[at] ^= by;
                let _ = world.deliver(who, &frame);
            }
        }
        Step::Installed(who) => world.installed(who),
        Step::Restart(who) => world.restart(who),
        Step::Tick(millis) => world.tick(Duration::from_millis(millis)),
        // The peer really sent on this generation.
        Step::Heard(who) => {
            if let Some((_, senders)) = &world.sides[1 - who].senders {
                let index = senders[0].index();
                let generation = world.sides[who].receivers.get(&index).map(|(generation, _)| *generation);
                let action = generation.and_then(|generation| world.sides[who].exchange.heard(generation));
                world.act(who, action);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_schedule_reuses_a_key_or_keeps_the_ends_apart(
        seed in any::<u64>(), schedule in proptest::collection::vec(steps(), 0..80)) {
        let mut world = World::new(seed);
        for one in &schedule {
            step(&mut world, one);
        }
        // The middle behaves again: whatever was begun ends, then a new exchange completes within one patience more.
        world.settle();
        for _ in 0..300 {
            world.tick(Duration::from_secs(1));
            world.settle();
        }
        for side in &mut world.sides {
            side.senders = None;
        }
        world.want(0);
        world.want(1);
        for _ in 0..15 {
            world.settle();
            world.tick(Duration::from_secs(1));
        }
        prop_assert_eq!(world.talk(0), (2, 2));
        prop_assert_eq!(world.talk(1), (3, 3));
    }

    #[test]
    fn any_bytes_are_refused(seed in any::<u64>(), bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut world = World::new(seed);
        prop_assert!(world.deliver(0, &bytes).is_err());
        prop_assert!(world.deliver(1, &bytes).is_err());
    }
}

//! Goes through every schedule, each state once.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;

use super::*;

/// Where schedules begin.
#[derive(Clone, Copy, Debug)]
enum Root {
    /// Nothing was ever agreed on; the first frame is under way.
    Fresh,
    /// Both reach each other.
    Connected,
    /// Both reach each other, and the next generation is wanted: its first frame is under way.
    Renewing,
}

impl World {
    /// `talks`: who has something to say while the middle misbehaves.
    fn at(root: Root, talks: [bool; 2], left: Budget) -> Self {
        let mut world = Self::new([true, true], left);
        let seconds = match root {
            Root::Fresh => 0,
            Root::Connected => 10,
            Root::Renewing => RENEW.as_secs() + 1,
        };
        for _ in 0..seconds {
            world.settle();
            world.second();
            if world.nodes[0].link.sending.last().is_some_and(|ways| world.now >= ways.since + RENEW) {
                break;
            }
        }
        if !matches!(root, Root::Connected) {
            world.second();
        }
        assert_eq!(world.reach_each_other(), !matches!(root, Root::Fresh));
        world.talks = talks;
        world
    }
}

/// Every schedule within the budget; with WARREN_SCHEDULE_STEPS=n, longer ones: six steps take a minute, seven several.
fn explore(root: Root, talks: [bool; 2], mut budget: Budget) {
    let more = std::env::var("WARREN_SCHEDULE_STEPS").ok().and_then(|steps| steps.parse().ok());
    budget.steps = more.unwrap_or(budget.steps);
    let (mut seen, mut longest, began) = (HashSet::new(), 0, Instant::now());
    let mut open = VecDeque::from([World::at(root, talks, budget)]);
    while let Some(world) = open.pop_front() {
        longest = longest.max(told(&world.steps, || world.clone().recover()));
        for step in world.choices() {
            let mut next = world.clone();
            next.steps.push(step);
            told(&next.steps.clone(), || next.step(step));
            if seen.insert(next.likeness()) {
                open.push_back(next);
            }
        }
    }
    eprintln!("{root:?}, {talks:?}: {} states, recovered within {longest} s, {:?}", seen.len(), began.elapsed());
}

/// Says which schedule it was that failed.
fn told<T>(steps: &[Step], act: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        eprintln!("the schedule: {steps:?}");
        resume_unwind(panic)
    })
}

const BUDGET: Budget = Budget { steps: 5, losses: 2, repeats: 1, restarts: 1, pauses: 2, slow: false, untold: false };

#[test]
fn no_schedule_of_a_first_exchange_breaks_a_promise() {
    explore(Root::Fresh, [true, true], BUDGET);
}

#[test]
fn no_schedule_after_an_exchange_breaks_a_promise() {
    explore(Root::Connected, [true, true], Budget { pauses: 3, ..BUDGET });
}

#[test]
fn no_schedule_of_a_renewal_breaks_a_promise_when_the_smaller_key_talks() {
    explore(Root::Renewing, [true, false], Budget { losses: 1, ..BUDGET });
}

#[test]
fn no_schedule_of_a_renewal_breaks_a_promise_when_the_larger_key_talks() {
    explore(Root::Renewing, [false, true], Budget { losses: 1, ..BUDGET });
}

#[test]
fn no_schedule_in_which_workers_are_slow_to_be_ready_breaks_a_promise() {
    explore(Root::Fresh, [true, true], Budget { slow: true, losses: 1, repeats: 0, pauses: 1, ..BUDGET });
}

const UNTOLD: Budget = Budget { steps: 4, losses: 0, repeats: 0, pauses: 3, untold: true, ..BUDGET };

#[test]
fn no_schedule_in_which_it_is_not_told_or_told_late_what_arrives_breaks_a_promise() {
    explore(Root::Connected, [true, false], UNTOLD);
}

#[test]
fn what_is_told_late_keeps_a_dead_lane_once_as_long_again() {
    let mut world = World::at(Root::Connected, [true, true], Budget { steps: 5, pauses: 4, ..UNTOLD });
    let (untold, deaf) = (Step::Pass(3, Middle::Untold(0)), Step::Pass(9, Middle::Deaf(0)));
    for step in [untold, deaf, Step::Late(0), deaf] {
        world.step(step);
    }
    assert!(world.nodes[0].sender.is_some(), "it sends into nothing for 18 seconds, since it was told otherwise");
    world.step(deaf);
    assert!(world.nodes[0].sender.is_none());
}

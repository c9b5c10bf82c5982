//! What may happen next, and what comes of it.

use super::*;

/// What is left of what may go wrong.
#[derive(Clone, Copy, Hash)]
pub(super) struct Budget {
    pub(super) steps: u8,
    pub(super) losses: u8,
    pub(super) repeats: u8,
    pub(super) restarts: u8,
    pub(super) pauses: u8,
    /// Workers say that they are ready in a step of its own.
    pub(super) slow: bool,
    /// There are pauses in which nobody tells one of the nodes what arrives.
    pub(super) untold: bool,
}

/// What happens to data, and to what is told of it, while time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Middle {
    Fair,
    /// This node's data is lost.
    Deaf(usize),
    /// What this node is told of its data is kept back.
    Untold(usize),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Deliver(usize, usize),
    Repeat(usize, usize),
    Lose(usize, usize),
    /// The last Seen that was kept back comes.
    Late(usize),
    Ready(usize),
    Restart(usize),
    /// Seconds.
    Pass(u32, Middle),
}

impl World {
    /// The tunnel's new session carries nothing that was sealed for the node that is gone; what it sent itself may come.
    fn restart(&mut self, who: usize) {
        self.nodes[who] = Node::new(&self.keys, who, self.nodes[who].boot + 1);
        self.wires[who].clear();
        self.kept[who] = None;
    }

    pub(super) fn choices(&self) -> Vec<Step> {
        let mut choices = Vec::new();
        if self.left.steps == 0 {
            return choices;
        }
        for who in [0, 1] {
            for at in 0..self.wires[who].len() {
                choices.push(Step::Deliver(who, at));
                choices.extend((self.left.repeats > 0).then_some(Step::Repeat(who, at)));
                choices.extend((self.left.losses > 0).then_some(Step::Lose(who, at)));
            }
            choices.extend(self.kept[who].is_some().then_some(Step::Late(who)));
            choices.extend((!self.nodes[who].unsaid.is_empty()).then_some(Step::Ready(who)));
            choices.extend((self.left.restarts > 0).then_some(Step::Restart(who)));
        }
        if self.left.pauses > 0 {
            choices.push(Step::Pass(1, Middle::Fair));
            choices.extend([Middle::Fair, Middle::Deaf(0), Middle::Deaf(1)].map(|middle| Step::Pass(16, middle)));
            for who in [0, 1].into_iter().filter(|who| self.left.untold && self.talks[*who]) {
                // The second of three is not long enough to give a lane up.
                let middles = [(3, Middle::Untold(who)), (9, Middle::Deaf(who)), (16, Middle::Untold(who))];
                choices.extend(middles.map(|(seconds, middle)| Step::Pass(seconds, middle)));
            }
        }
        choices
    }

    pub(super) fn step(&mut self, step: Step) {
        self.left.steps -= 1;
        match step {
            Step::Deliver(who, at) => {
                let frame = self.wires[who].remove(at).unwrap();
                self.deliver(who, &frame);
            }
            Step::Repeat(who, at) => {
                self.left.repeats -= 1;
                let frame = self.wires[who][at].clone();
                self.deliver(who, &frame);
            }
            Step::Lose(who, at) => {
                self.left.losses -= 1;
                self.wires[who].remove(at);
            }
            Step::Late(who) => self.tell_late(who),
            Step::Ready(who) => self.say_ready(who),
            Step::Restart(who) => {
                self.left.restarts -= 1;
                self.restart(who);
            }
            Step::Pass(seconds, middle) => {
                self.left.pauses -= 1;
                self.middle = middle;
                (0..seconds).for_each(|_| self.second());
                self.middle = Middle::Fair;
            }
        }
    }

    /// It says that data arrived, and whoever is told cannot know when: the time of its lane begins anew.
    fn tell_late(&mut self, who: usize) {
        let Some(seen) = self.kept[who].take() else { return };
        let told = Seen::parse(&seen).map(|seen| seen.index);
        let Node { into_nothing, sender, .. } = &mut self.nodes[who];
        if told.is_some() && told == sender.map(|(_, index, _)| index) {
            *into_nothing = into_nothing.map(|_| self.now);
        }
        self.deliver(who, &seen);
    }

    /// Everything that is under way arrives, and workers answer.
    pub(super) fn settle(&mut self) {
        loop {
            for who in [0, 1] {
                if let Some(frame) = self.wires[who].pop_front() {
                    self.deliver(who, &frame);
                }
                self.say_ready(who);
            }
            if [0, 1].into_iter().all(|who| self.wires[who].is_empty() && self.nodes[who].unsaid.is_empty()) {
                return;
            }
        }
    }
}

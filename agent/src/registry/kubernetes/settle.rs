//! What is done about what was heard: it is told, and then what this node writes is put right. In this order: a write that
//! is slow, refused or undone each time keeps nobody from hearing for longer than it takes to give it up.

use tokio::time::Instant;
use warren_overlay::mesh::{Allocation, Cluster};
use warren_overlay::record::Record;

use super::server::Server;
use super::{Fault, Registry, UNSETTLED};
use crate::config::Cidrs;
use crate::registry::Concern;

/// So many problems are said at once.
const SAID: usize = 8;

/// As much of it as people read.
pub(super) fn brief(problems: &[String]) -> String {
    let mut said = problems.iter().take(SAID).map(String::as_str).collect::<Vec<_>>().join("; ");
    if problems.len() > SAID {
        said += &format!("; and {} more", problems.len() - SAID);
    }
    said
}

impl Registry {
    /// Tells what is known and publishes what is to be known of us.
    pub(super) async fn settle(&mut self, server: &Server) -> Result<(), Fault> {
        self.publisher.look();
        if let Some(problem) = self.leaves(server).await? {
            self.voice.unwell(&problem).await;
            return Ok(());
        }
        let cluster = match self.store.cluster(&self.id) {
            Ok(cluster) => cluster,
            Err(problem) => {
                self.voice.unwell(&problem).await;
                return Ok(());
            }
        };
        self.known.cluster = Some(cluster.clone());
        let Some(problems) = self.tell_and_write(server, cluster).await? else { return Ok(()) };
        if self.ailing.is_empty() {
            self.voice.contact(self.store.revision());
        }
        match problems.as_slice() {
            [] => self.voice.well(format!("connected, version {}", self.store.revision())).await,
            problems => self.voice.unwell(&brief(problems)).await,
        }
        Ok(())
    }

    /// What is wrong; `None` while it is too early to say.
    async fn tell_and_write(&mut self, server: &Server, cluster: Cluster) -> Result<Option<Vec<String>>, Fault> {
        let mut problems = self.ails();
        let has_told = self.voice.has_told();
        if has_told {
            problems.extend(self.tell(cluster.clone()).await?);
        }
        let unclaimed = self.claim(server, &cluster).await;
        if !has_told {
            // What is newly claimed comes back by the watch. For a moment nobody is told anything until then: it would be
            // that the node has no prefix, and its routes and everybody's to it would go and come back.
            if self.awaits_echo() {
                return Ok(None);
            }
            problems.extend(self.tell(cluster).await?);
        }
        // Without its Node the record would be nobody's, and stay for ever.
        let wanted = self.channels.publish.borrow().clone();
        if let Some(record) = wanted.filter(|_| !self.lacks_node()).map(|record| self.store.shown(record)) {
            let least = self.without_held(&record);
            problems.extend(self.publisher.publish(server, &self.store, &record, &least).await);
        }
        self.publisher.report(server, &self.store, &unclaimed).await;
        self.herald.note(Concern::NotAllocated, (!unclaimed.is_empty()).then(|| brief(&unclaimed)));
        self.herald.tell(server, &self.store, self.publisher.node());
        problems.extend(unclaimed);
        Ok(Some(problems))
    }

    /// The record without what this node only keeps because it is in use here: its Node does not give it any more.
    fn without_held(&self, record: &Record) -> Record {
        let mut record = record.clone();
        if let Cidrs::Given(given) = &*self.channels.cidrs.borrow() {
            record.cidrs.retain(|cidr| !given.holds(cidr));
        }
        record
    }

    /// Takes the record back when this node is to leave, and ends; or why that cannot be done.
    pub(super) async fn leaves(&mut self, server: &Server) -> Result<Option<String>, Fault> {
        let wanted = self.channels.publish.borrow_and_update().clone();
        match &wanted {
            Some(record) => self.publisher.want(record),
            None if self.publisher.has_wanted() && self.store.is_complete() => {
                let problem = self.publisher.withdraw(server, &self.store).await;
                // Whoever asked may have given up meanwhile.
                let leaves = self.channels.publish.borrow().is_none();
                return if leaves && problem.is_none() { Err(Fault::Left) } else { Ok(problem) };
            }
            None => {}
        }
        Ok(None)
    }

    /// Tells what is known; what is wrong with it.
    async fn tell(&mut self, cluster: Cluster) -> Result<Vec<String>, Fault> {
        let now = Instant::now();
        let (mut snapshot, mut problems) = self.store.snapshot(cluster, &self.known);
        self.release(&mut snapshot.released, now);
        let doubt = self.doubts.hold_back(self.voice.entries(&self.known), &mut snapshot.entries, now);
        let unsettled = (now < self.settled_at).then(|| UNSETTLED.to_owned());
        self.herald.note(Concern::RegistryDoubted, doubt.clone().or(unsettled));
        problems.extend(doubt);
        if now >= self.settled_at {
            self.voice.tell(snapshot, &mut self.known).await?;
        }
        Ok(problems)
    }

    /// Leaves of what is missing only what is given back.
    fn release(&mut self, missing: &mut Vec<Allocation>, now: Instant) {
        if now < self.settled_at || self.store.overflown().next().is_some() {
            missing.clear();
            return self.absences.forget();
        }
        let lasting = self.absences.lasting(std::mem::take(missing), now);
        missing.extend(lasting.into_iter().filter(|gone| self.gives_back(gone)));
    }

    /// Its own prefixes a node gives back only when it was given others.
    fn gives_back(&self, gone: &Allocation) -> bool {
        let own = gone.node == *self.publisher.node();
        !own || self.wanted().is_ok_and(|wanted| wanted.rule_out(&gone.cidr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_problems_the_first_are_said_and_the_others_counted() {
        let problems: Vec<_> = (0..5000).map(|number| format!("p{number}")).collect();
        assert_eq!(brief(&problems[..2]), "p0; p1");
        let said = brief(&problems);
        assert!(said.starts_with("p0; p1; ") && said.ends_with("; and 4992 more") && said.len() < 100, "{said}");
    }
}

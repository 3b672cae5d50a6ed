//! A world that is moved by hand: what is sent waits until it is delivered, time passes when it is told to. Disks are
//! done at once.

use std::sync::Arc;

use polder_node::replica::Event;
use polder_types::{Genesis, GenesisError, Keyring, ReplicaId};

use super::{Parcel, World};
use crate::checkers::Verdict;
use crate::history::Command;
use crate::network::{Copy, Party};
use crate::swarm::Options;
use crate::trace::Trace;

impl World {
    /// A world moved by hand, its replicas started.
    ///
    /// # Errors
    ///
    /// When the options are no configuration that can be.
    pub fn manual(mut options: Options) -> Result<Self, GenesisError> {
        options.tick_ms = 0;
        options.load.requests = 0;
        let mut world = Self::new(options)?;
        world.trace = Trace::keeping();
        world.held = Some(Vec::new());
        Ok(world)
    }

    /// The configuration that it started from.
    #[must_use]
    pub fn genesis(&self) -> &Arc<Genesis> {
        &self.genesis
    }

    /// The replicas' public keys.
    #[must_use]
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// What was sent and neither delivered nor dropped, oldest first.
    #[must_use]
    pub fn held(&self) -> &[Copy<Parcel>] {
        self.held.as_deref().unwrap_or_default()
    }

    /// Takes a message out of what is held; none when there is no such one.
    pub fn take_held(&mut self, index: usize) -> Option<Copy<Parcel>> {
        let held = self.held.as_mut()?;
        (index < held.len()).then(|| held.remove(index))
    }

    /// Lets a message arrive, and everything that follows from it by itself.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn deliver(&mut self, copy: Copy<Parcel>) -> Verdict {
        self.arrive(copy)?;
        self.settle()
    }

    /// Lets disks and what runs beside the loops finish.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn settle(&mut self) -> Verdict {
        while let Some(((at_us, _, _), happening)) = self.queue.pop_first() {
            self.now_us = self.now_us.max(at_us);
            self.happen(happening)?;
        }
        Ok(())
    }

    /// Starts a replica, for the first time or again.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn start(&mut self, replica: ReplicaId) -> Verdict {
        self.restart(replica.0.into())?;
        self.settle()
    }

    /// A replica crashes: all that it has not synced is lost.
    pub fn stop(&mut self, replica: ReplicaId) {
        let host = usize::from(replica.0);
        self.hosts[host].crash(&mut self.disk_random);
        self.trace.line(format_args!("{replica} crashes"));
    }

    /// Time passes for all and these replicas notice it.
    ///
    /// # Errors
    ///
    /// The first property that does not hold.
    pub fn tick(&mut self, after_ms: u64, replicas: &[ReplicaId]) -> Verdict {
        self.now_us += after_ms * 1_000;
        for replica in replicas {
            self.give(replica.0.into(), Event::Tick)?;
        }
        self.settle()
    }

    /// A client makes a request of these commands, or sends again what is late.
    pub fn ask(&mut self, client: usize, commands: Vec<Command>) {
        if let Some(client) = self.clients.get_mut(client)
            && !commands.is_empty()
        {
            client.order(commands);
        }
        self.client_tick(client);
    }

    /// Who sends and gets something, in scripts: `r0`, `c0`.
    #[must_use]
    pub fn name(&self, party: Party) -> String {
        match party.0.checked_sub(self.hosts.len()) {
            None => format!("r{}", party.0),
            Some(client) => format!("c{client}"),
        }
    }

    /// Adds a message to what is held.
    pub fn hold(&mut self, copy: Copy<Parcel>) {
        self.held.get_or_insert_default().push(copy);
    }

    /// Of the STATUSes that are held between two replicas, only the newest matters.
    pub fn keep_newest_statuses(&mut self) {
        let held = self.held.get_or_insert_default();
        let mut seen = std::collections::BTreeSet::new();
        let mut kept: Vec<Copy<Parcel>> = Vec::new();
        for copy in held.drain(..).rev() {
            let is_status = copy.message.to_string().starts_with("STATUS");
            if !is_status || seen.insert((copy.from, copy.to)) {
                kept.push(copy);
            }
        }
        kept.reverse();
        *held = kept;
    }
}

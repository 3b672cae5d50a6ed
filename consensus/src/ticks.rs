//! What time brings about (R6, R7).

use alloc::vec::Vec;

use crate::progress::Timer;
use crate::requests::Tick;
use crate::{Core, Ignored, Output};

impl Core {
    /// Time has passed.
    pub(crate) fn on_tick(&mut self, monotonic_ms: u64, out: &mut Vec<Output>) -> Result<(), Ignored> {
        let elapsed_ms = self.progress.tick(monotonic_ms);
        while let Some(timer) = self.progress.fired() {
            self.on_timer(timer, out);
        }
        self.time_requests(elapsed_ms, out);
        self.note_agreement();
        self.release_held(out);
        Ok(())
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Vec<Output>) {
        match timer {
            Timer::Status => {
                self.progress.arm(Timer::Status, self.config.constants.status_period_ms.max(1));
                self.broadcast_status(out);
            }
            // R6 (ii), (iv)
            Timer::NewView => {
                mark!(NewViewMissed);
                self.suspect(out);
            }
            Timer::Silent => {
                mark!(LeaderSilent);
                self.suspect(out);
            }
            Timer::Filler => {
                mark!(FillerMissed);
                self.suspect(out);
            }
            Timer::Tail => self.on_tail(),
            Timer::SessionClock => self.on_session_clock(),
            Timer::SessionFiller => self.on_session_filler(out),
            Timer::Calm => {
                self.progress.calmed();
                self.progress.arm(Timer::Calm, self.progress.timeout_ms().saturating_mul(64));
            }
            Timer::Gap => self.on_gap(out),
        }
    }

    /// R6 (i): the deadlines of waiting requests. They pause while this replica lags, and until the view has started.
    fn time_requests(&mut self, elapsed_ms: u64, out: &mut Vec<Output>) {
        if self.term.start.is_none() {
            return;
        }
        #[cfg_attr(not(polder_mutations), allow(unused_mut))]
        let mut lags = self.window.lags();
        #[cfg(polder_mutations)]
        {
            lags |= self.takes_a_gap_for_lag();
        }
        let tick = Tick {
            elapsed_ms: if lags { 0 } else { elapsed_ms },
            now_ms: self.progress.now_ms(),
            timeout_ms: self.progress.timeout_ms(),
            next: self.next_slot(),
            executed: self.window.executed,
            forwards: !self.is_leader(),
            #[cfg(polder_mutations)]
            time_all: mutated!(self, DeadlinesForTheInexecutable),
        };
        let ticked = self.requests.tick(&tick);
        ticked.forward.iter().for_each(|request| self.forward(request, out));
        if ticked.overdue {
            self.suspect(out);
        }
    }
}

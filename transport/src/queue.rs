//! A queue of frames, bounded in frames and bytes, that can be pushed to without waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::budget::Account;

/// What a queue holds at most. One frame always fits into an empty queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bound {
    pub(crate) frames: usize,
    pub(crate) bytes: usize,
}

/// A push that was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Full,
    Closed,
}

/// One producer side, one consumer side, any number of tasks on each.
#[derive(Debug)]
pub(crate) struct Queue {
    bound: Bound,
    /// Where what is in it, and what was popped and is not yet sent, counts too.
    account: Option<Account>,
    state: Mutex<State>,
    /// Told when there is something to pop, or the queue is closed. Several queues may share it.
    readable: Arc<Notify>,
    /// Told when there is room again, or the queue is closed.
    writable: Notify,
    /// Told when the consumer is done.
    done: Notify,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Bytes>,
    bytes: usize,
    closed: bool,
    done: bool,
}

/// Frames on their way from a queue to the peer. They count in the queue's account until this is dropped.
#[derive(Debug)]
pub(crate) struct Popped<'a> {
    pub(crate) frames: Vec<Bytes>,
    account: Option<&'a Account>,
}

impl Drop for Popped<'_> {
    fn drop(&mut self) {
        if let Some(account) = self.account {
            account.remove(self.frames.iter().map(Bytes::len).sum());
        }
    }
}

impl Queue {
    pub(crate) fn new(bound: Bound, account: Option<Account>, readable: Arc<Notify>) -> Self {
        Self { bound, account, state: Mutex::default(), readable, writable: Notify::new(), done: Notify::new() }
    }

    /// Pushes a frame, or refuses it.
    pub(crate) fn try_push(&self, frame: Bytes) -> Result<(), Refused> {
        let mut state = self.state();
        if state.closed {
            return Err(Refused::Closed);
        }
        let room = state.frames.len() < self.bound.frames && state.bytes + frame.len() <= self.bound.bytes;
        if !room && !state.frames.is_empty() {
            return Err(Refused::Full);
        }
        state.bytes += frame.len();
        if let Some(account) = &self.account {
            // Before it can be popped.
            account.add(frame.len());
        }
        state.frames.push_back(frame);
        drop(state);
        self.readable.notify_one();
        Ok(())
    }

    /// Pushes a frame, waiting for room. Cancel safe: a dropped future has pushed nothing.
    pub(crate) async fn push(&self, frame: Bytes) -> Result<(), Refused> {
        loop {
            let mut room = std::pin::pin!(self.writable.notified());
            // Registered before the attempt: room made in between is not missed.
            room.as_mut().enable();
            match self.try_push(frame.clone()) {
                Err(Refused::Full) => room.await,
                other => return other,
            }
        }
    }

    /// The oldest frame, if any. It counts in the account no more.
    pub(crate) fn try_pop(&self) -> Option<Bytes> {
        let frame = self.take()?;
        if let Some(account) = &self.account {
            account.remove(frame.len());
        }
        Some(frame)
    }

    fn take(&self) -> Option<Bytes> {
        let mut state = self.state();
        let frame = state.frames.pop_front()?;
        state.bytes -= frame.len();
        drop(state);
        self.writable.notify_waiters();
        Some(frame)
    }

    /// Waits for frames and takes as many as are there, up to `bytes`, at least one; none once the queue is closed
    /// and empty.
    pub(crate) async fn pop_some(&self, bytes: usize) -> Popped<'_> {
        loop {
            let mut more = std::pin::pin!(self.readable.notified());
            more.as_mut().enable();
            let mut popped = Popped { frames: Vec::new(), account: self.account.as_ref() };
            let mut sum = 0;
            while let Some(frame) = (sum < bytes).then(|| self.take()).flatten() {
                sum += frame.len() + 4;
                popped.frames.push(frame);
            }
            if !popped.frames.is_empty() || self.is_closed() {
                return popped;
            }
            more.await;
        }
    }

    /// Takes no more frames; what is in it can still be popped.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.readable.notify_one();
        self.writable.notify_waiters();
    }

    /// As [`Queue::close`], and drops what is in it.
    pub(crate) fn abandon(&self) {
        let mut state = self.state();
        state.closed = true;
        state.frames.clear();
        let bytes = std::mem::take(&mut state.bytes);
        if let Some(account) = &self.account {
            account.remove(bytes);
        }
        drop(state);
        self.readable.notify_one();
        self.writable.notify_waiters();
    }

    /// The bytes in it.
    pub(crate) fn bytes(&self) -> usize {
        self.state().bytes
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Whether nothing can be popped any more.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.state();
        state.closed && state.frames.is_empty()
    }

    /// The consumer is done with everything that was ever pushed.
    pub(crate) fn set_done(&self) {
        self.abandon();
        self.state().done = true;
        self.done.notify_waiters();
    }

    /// Waits for [`Queue::set_done`].
    pub(crate) async fn until_done(&self) {
        loop {
            let mut done = std::pin::pin!(self.done.notified());
            done.as_mut().enable();
            if self.state().done {
                return;
            }
            done.await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use polder_types::PublicKey;

    use crate::budget::Budget;

    fn queue(frames: usize, bytes: usize) -> Queue {
        Queue::new(Bound { frames, bytes }, None, Arc::default())
    }

    fn frame(len: usize) -> Bytes {
        Bytes::from(vec![0; len])
    }

    #[test]
    fn bounded_in_frames_and_in_bytes_but_one_always_fits() {
        let few = queue(2, 100);
        assert_eq!(few.try_push(frame(1)), Ok(()));
        assert_eq!(few.try_push(frame(1)), Ok(()));
        assert_eq!(few.try_push(frame(1)), Err(Refused::Full));
        let small = queue(100, 10);
        assert_eq!(small.try_push(frame(50)), Ok(()));
        assert_eq!(small.try_push(frame(1)), Err(Refused::Full));
        assert_eq!(small.try_pop().map(|frame| frame.len()), Some(50));
        assert_eq!(small.try_push(frame(10)), Ok(()));
    }

    #[test]
    fn a_closed_queue_takes_nothing_and_gives_what_it_has() {
        let queue = queue(10, 100);
        assert_eq!(queue.try_push(frame(1)), Ok(()));
        queue.close();
        assert_eq!(queue.try_push(frame(1)), Err(Refused::Closed));
        assert!(!queue.is_over());
        assert!(queue.try_pop().is_some());
        assert!(queue.is_over());
    }

    #[tokio::test]
    async fn who_waits_for_room_goes_on_when_there_is_some() {
        let queue = Arc::new(queue(1, 100));
        assert_eq!(queue.push(frame(1)).await, Ok(()));
        let pushing = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.push(frame(2)).await }
        });
        tokio::task::yield_now().await;
        assert!(!pushing.is_finished());
        assert_eq!(queue.pop_some(10).await.frames.len(), 1);
        assert_eq!(pushing.await.ok(), Some(Ok(())));
        assert_eq!(queue.pop_some(10).await.frames, [frame(2)]);
    }

    #[tokio::test]
    async fn who_waits_is_told_of_the_end() {
        let queue = Arc::new(queue(1, 100));
        assert_eq!(queue.push(frame(1)).await, Ok(()));
        let pushing = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.push(frame(2)).await }
        });
        tokio::task::yield_now().await;
        queue.close();
        assert_eq!(pushing.await.ok(), Some(Err(Refused::Closed)));
        assert_eq!(queue.pop_some(10).await.frames.len(), 1);
        assert!(queue.pop_some(10).await.frames.is_empty());
        queue.set_done();
        queue.until_done().await;
    }

    #[tokio::test]
    async fn what_is_queued_or_being_sent_counts_in_the_account_and_nothing_else_does() {
        let budget = Budget::new(100);
        let ended = Arc::new(AtomicBool::new(false));
        let end = Arc::clone(&ended);
        let account = budget.open(PublicKey([1; 32]), move || end.store(true, Ordering::Relaxed));
        let queue = Queue::new(Bound { frames: 100, bytes: 1_000 }, Some(account), Arc::default());
        for _ in 0..20 {
            for _ in 0..5 {
                assert_eq!(queue.try_push(frame(20)), Ok(()));
            }
            assert_eq!(queue.pop_some(100).await.frames.len(), 5);
        }
        assert_eq!(queue.try_push(frame(90)), Ok(()));
        queue.abandon();
        let other = budget.open(PublicKey([2; 32]), || {});
        other.add(100);
        assert!(!ended.load(Ordering::Relaxed));
        drop(other);
        let queue = Queue { state: Mutex::default(), ..queue };
        assert_eq!(queue.try_push(frame(60)), Ok(()));
        let being_sent = queue.pop_some(100).await;
        assert_eq!(queue.try_push(frame(41)), Ok(()));
        assert!(ended.load(Ordering::Relaxed), "what is being sent still counts");
        drop(being_sent);
    }

    #[tokio::test]
    async fn pops_come_in_batches_of_bounded_size() {
        let queue = queue(100, 1_000);
        for _ in 0..10 {
            assert_eq!(queue.try_push(frame(10)), Ok(()));
        }
        assert_eq!(queue.pop_some(28).await.frames.len(), 2);
        assert_eq!(queue.pop_some(1_000).await.frames.len(), 8);
    }
}

//! An allocator that counts, so that what is decoded and what a flood leaves behind can be held to a bound. A binary or a
//! test that wants it says so: `#[global_allocator] static COUNTING: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The system's allocator, with counts beside it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Bytes that this thread allocated and freed: below zero when it frees what others allocated.
    static LIVE_HERE: Cell<isize> = const { Cell::new(0) };
    static PEAK_HERE: Cell<isize> = const { Cell::new(0) };
    /// Whether what this thread holds is no business of the process's counts.
    static IS_APART: Cell<bool> = const { Cell::new(false) };
}

/// What this thread holds from now on does not count for the process: it plays somebody else, who would be a process of
/// their own.
pub fn count_this_thread_apart() {
    IS_APART.set(true);
}

fn is_apart() -> bool {
    IS_APART.try_with(Cell::get).unwrap_or(false)
}

fn grown(bytes: usize) {
    if !is_apart() {
        let live = LIVE.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
    // A thread that is ending counts no more.
    let _ended = LIVE_HERE.try_with(|here| {
        let live = here.get().saturating_add_unsigned(bytes);
        here.set(live);
        PEAK_HERE.with(|peak| peak.set(peak.get().max(live)));
    });
}

fn shrunk(bytes: usize) {
    if !is_apart() {
        LIVE.fetch_sub(bytes, Ordering::Relaxed);
    }
    let _ended = LIVE_HERE.try_with(|here| here.set(here.get().saturating_sub_unsigned(bytes)));
}

#[allow(unsafe_code, reason = "an allocator is unsafe by its trait; each call is handed on to the system's as it came")]
// SAFETY: every call is the system allocator's own, with the same arguments; the counts touch no memory of the caller's
// and never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        shrunk(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // While it moves, both may be there.
        grown(new_size);
        shrunk(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, new_size) }
    }
}

/// Runs this, and says how many bytes more than before this thread held at once meanwhile. 0 in a binary that does not
/// have the allocator.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE_HERE.get();
    PEAK_HERE.set(before);
    let result = run();
    let peak = PEAK_HERE.get().saturating_sub(before);
    (result, usize::try_from(peak).unwrap_or_default())
}

/// Bytes that the whole process holds.
#[must_use]
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// The most that the whole process held since [`forget_peak`].
#[must_use]
pub fn peak() -> usize {
    PEAK.load(Ordering::Relaxed)
}

/// Starts anew: the peak is what is held now.
pub fn forget_peak() {
    PEAK.store(LIVE.load(Ordering::Relaxed), Ordering::Relaxed);
}

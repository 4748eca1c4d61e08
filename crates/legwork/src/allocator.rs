//! How the allocator asks the system for memory, and gives it back.
#![allow(unsafe_code, reason = "the allocator is C; the one function of it that is called here takes a flag")]

use std::cell::Cell;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// mimalloc's own options. It reads them before `main`, so they can only come from the environment. By default it commits whole arenas
/// at once and asks for huge pages: with 100,000 devices that was 100 MB of memory nobody used.
const OPTIONS: [(&str, &str); 2] = [("MIMALLOC_ARENA_EAGER_COMMIT", "0"), ("MIMALLOC_ALLOW_THP", "0")];

/// Starts this program again in its own place, with the same process id, unless the options are set already.
pub(crate) fn settle() {
    if OPTIONS.iter().all(|(name, _)| std::env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let unset = OPTIONS.into_iter().filter(|(name, _)| std::env::var_os(name).is_none());
    // It only returns when it failed: then the program goes on with more memory than it needs.
    let _failed = Command::new(program).args(std::env::args_os().skip(1)).envs(unset).exec();
}

unsafe extern "C" {
    /// mimalloc's: gives back what the calling thread has freed.
    safe fn mi_collect(force: bool);
}

/// Gives memory back to the system that this thread has freed. mimalloc does so in passing, while the thread goes on allocating: one
/// that has caught up and rests would keep what the last batches took.
pub(crate) fn give_back() {
    mi_collect(true);
}

/// A thread of the runtime that rests gives memory back at most this often.
const GIVE_BACK_EVERY: Duration = Duration::from_secs(5);

/// To be called when a thread of the runtime has nothing to do: what compactions and queries took is not kept for the next ones, each of
/// which may run on other threads.
pub(crate) fn rest() {
    thread_local! {
        static GIVEN_BACK: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    if GIVEN_BACK.get().is_none_or(|at| now.duration_since(at) >= GIVE_BACK_EVERY) {
        GIVEN_BACK.set(Some(now));
        give_back();
    }
}

//! Activity of reps: calls, e-mails, messages, meetings and tasks by rep and tumbling window, and who was in contact with whom.
//!
//! Calls, meetings and tasks are entities: the newest version of an id counts, in the window of its own time, and a change takes
//! back what it replaces. E-mails and messages are facts: each counts once. Lateness is measured by the record key's clock.

mod calls;
mod correspondence;
mod meetings;
mod tasks;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;
pub(crate) mod touches;
mod windows;

pub use calls::Calls;
pub use correspondence::Correspondence;
pub use meetings::Meetings;
pub use tasks::Tasks;

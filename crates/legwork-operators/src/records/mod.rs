//! Leads, orders, facts that are only kept, and reference data.

mod facts;
mod leads;
mod orders;
mod reference;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests;

pub use facts::Facts;
pub use leads::Leads;
pub use orders::Orders;
pub use reference::Reference;

//! Tests over whole tables.

mod commits;
mod engines;

//! Tests over whole tables.

mod commits;

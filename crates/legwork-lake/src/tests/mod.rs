//! Tests over whole tables.

mod commits;
mod engines;
mod maintenance;
mod schemas;

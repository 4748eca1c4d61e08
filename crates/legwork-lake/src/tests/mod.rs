//! Tests over whole tables.

mod commits;
mod engines;
mod figures;
mod maintenance;
mod s3;
mod schemas;

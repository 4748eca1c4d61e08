//! Tests over whole tables.

mod chaos;
mod commits;
mod encoded;
mod engines;
mod figures;
mod maintenance;
mod newest;
mod s3;
mod schemas;

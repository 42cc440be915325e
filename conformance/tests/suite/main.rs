//! Pleach from outside: the built binary, real files, real sockets, real processes.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check_command;
mod sandbox_egress;
mod sandbox_files;
mod sandbox_processes;

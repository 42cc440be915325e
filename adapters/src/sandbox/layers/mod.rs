//! The layers, one a file. Each says what it holds and how it refuses.

pub(super) mod landlock;
pub(super) mod limits;
pub(super) mod mounts;
pub(super) mod namespaces;
pub(super) mod protected;
pub(super) mod seccomp;

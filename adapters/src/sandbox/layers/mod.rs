//! The layers, one a file. Each says what it holds and how it refuses.

pub(super) mod landlock;
pub(super) mod limits;
pub(super) mod mounts;
pub(super) mod namespaces;
pub(super) mod protected;
pub(super) mod seccomp;

/// What of the sandbox the table of layers (`trials/table.rs`) leaves out, one at a time, to see
/// what it alone stops. Only the unit tests of this crate can: everywhere else, `Spec::stands`
/// is `true` whatever it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(test, derive(serde::Serialize, serde::Deserialize))]
pub(super) enum Part {
    ProcessIds,
    Ipc,
    Network,
    Seal,
    Masks,
    Pins,
    Protected,
    Tmp,
    SharedMemory,
    Terminals,
    Processes,
    Landlock,
    Seccomp,
    Capabilities,
    Limits,
    Descriptors,
    Environment,
    Lifeline,
    Group,
}

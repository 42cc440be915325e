//! What the tree needs of the world, as traits that the rooms above implement.
//!
//! | port | who implements it | what it is for |
//! |---|---|---|
//! | [`Model`], [`Models`] | adapters | answers |
//! | [`Sampler`] | the MCP door | the client a tree works for, whose own model can be asked |
//! | [`Gate`], [`Toolbox`] | the guard | what may happen, and making it happen |
//! | [`Journal`] | the store | what happened, who owns a tree, questions, blobs, the inbox |
//! | [`Bus`] | the store, or a message bus | hints that somebody else posted a command |

mod guard;
mod journal;
mod model;

pub use guard::{
    Authorized, Decision, Deed, DeedKind, Facts, Gate, ToolFailure, ToolOutput, Toolbox, Verified, WhatHappened,
};
pub use journal::{
    Always, Answer, Bus, Claimed, Command, Journal, JournalError, Lease, Loaded, Of, Question, QuestionChange,
    QuestionFilter, QuestionRow, RunRow, Write,
};
pub use model::{
    Delta, Lender, Model, ModelError, ModelFacts, ModelFailure, Models, Reply, Request, Sampler, ToolSpec,
};

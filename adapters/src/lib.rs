//! Thin attachments to the outside. No decisions here: what may happen was decided by
//! `policies` and arrives as a permit; these rooms perform it.
//!
//! | room | joins |
//! |---|---|
//! | [`sandbox`] | a grant to the kernel |
//! | [`net`] | permits to sockets: the only dialler |
//! | [`a2a`] | peers to what servers are |
//! | [`oauth`] | a server's authorization to tokens for it |
//! | [`jwt`] | signed tokens to their claims |
//! | [`paths`] | the filesystem to `policies` |
//! | [`hidden`] | what is told and written to the values it must not hold |

pub mod a2a;
pub mod builtin;
pub mod crash;
pub mod hidden;
pub mod jwt;
pub mod kept;
pub mod mcp;
pub mod model;
pub mod net;
pub mod oauth;
pub mod paths;
pub mod sandbox;
mod sse;
pub mod store;
pub mod token;

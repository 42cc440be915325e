//! What the tests share: the built binary, temporary folders, and small servers that remember
//! what really reached them.

pub mod a2a;
pub mod crash;
pub mod fixture;
pub mod issuer;
pub mod ledger;
pub mod mirror;
pub mod mirror_server;
pub mod official;
pub mod parked;
pub mod pleach;
pub mod policy;
pub mod served;
pub mod upstream;

//! Who may write to a tree: claims, epochs, and giving back.
//!
//! ```text
//!  nobody ──claim──▶ owner, epoch n ──release──▶ nobody, epoch n ──claim──▶ owner, epoch n+1
//!                        └── found dead ──claim──▶ another owner, epoch n+1: n is fenced
//! ```

use super::inbox;
use super::open::Options;
use super::owner;
use super::writer::{Job, Verdict, begin, finish};
use super::{now, signed, unsigned};
use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};
use std::collections::{BTreeMap, HashMap};
use subagents::ports::{Claimed, Command, Lease};
use subagents::run::RunId;

/// The trees this process has, with the epoch of each.
pub(super) type Held = BTreeMap<RunId, u64>;

/// A tree that came, or went.
pub(super) struct Change {
    lease: Lease,
    has: bool,
}

pub(super) fn apply(held: &mut Held, changes: Vec<Change>) {
    for Change { lease, has } in changes {
        if has {
            held.insert(lease.root, lease.epoch);
        } else if held.get(&lease.root) == Some(&lease.epoch) {
            held.remove(&lease.root);
        }
    }
}

#[derive(Debug, Clone)]
struct Tree {
    epoch: u64,
    owner: Option<String>,
    lease_until: u64,
}

/// A transaction that has the write lock, so that what it read of a tree stays true.
pub(super) struct Tx<'c> {
    pub(super) connection: &'c mut SqliteConnection,
    pub(super) now: u64,
    options: &'c Options,
    trees: HashMap<RunId, Option<Tree>>,
    changes: Vec<Change>,
}

impl<'c> Tx<'c> {
    pub(super) fn new(connection: &'c mut SqliteConnection, options: &'c Options) -> Self {
        Self { connection, now: now(), options, trees: HashMap::new(), changes: Vec::new() }
    }
    /// The mark of this process.
    pub(super) fn me(&self) -> &'c str {
        &self.options.owner
    }
    /// What to tell of once it is committed.
    pub(super) fn changes(self) -> Vec<Change> {
        self.changes
    }
    /// Whether a lease is still good; one that is not is forgotten.
    pub(super) async fn holds(&mut self, lease: &Lease) -> Result<bool, sqlx::Error> {
        let tree = self.tree(&lease.root).await?;
        let holds = tree.is_some_and(|t| t.epoch == lease.epoch && t.owner.is_some());
        if !holds {
            // Whoever is fenced need not watch the tree any more.
            self.changes.push(Change { lease: lease.clone(), has: false });
        }
        Ok(holds)
    }
    /// Whether somebody alive has the tree.
    pub(super) async fn is_owned(&mut self, root: &RunId) -> Result<bool, sqlx::Error> {
        let now = self.now;
        let tree = self.tree(root).await?;
        Ok(tree.is_some_and(|t| t.owner.as_ref().is_some_and(|o| owner::holds(o, t.lease_until, now))))
    }
    async fn tree(&mut self, root: &RunId) -> Result<Option<Tree>, sqlx::Error> {
        if let Some(known) = self.trees.get(root) {
            return Ok(known.clone());
        }
        let row = sqlx::query("SELECT epoch, owner, lease_until FROM trees WHERE root = ?")
            .bind(root.as_str())
            .fetch_optional(&mut *self.connection)
            .await?;
        let tree = match row {
            None => None,
            Some(row) => Some(Tree {
                epoch: unsigned(row.try_get("epoch")?),
                owner: row.try_get("owner")?,
                lease_until: unsigned(row.try_get("lease_until")?),
            }),
        };
        self.trees.insert(root.clone(), tree.clone());
        Ok(tree)
    }
    async fn set(&mut self, root: &RunId, tree: Tree) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO trees (root, epoch, owner, lease_until) VALUES (?, ?, ?, ?) ON CONFLICT (root) DO UPDATE
             SET epoch = excluded.epoch, owner = excluded.owner, lease_until = excluded.lease_until",
        )
        .bind(root.as_str())
        .bind(signed(tree.epoch))
        .bind(tree.owner.as_deref())
        .bind(signed(tree.lease_until))
        .execute(&mut *self.connection)
        .await?;
        let lease = Lease { root: root.clone(), epoch: tree.epoch };
        self.changes.push(Change { lease, has: tree.owner.is_some() });
        self.trees.insert(root.clone(), Some(tree));
        Ok(())
    }
}

/// Makes this process the owner, unless a live one is.
pub(super) struct Claim(pub(super) RunId);

#[async_trait]
impl Job for Claim {
    type Output = Claimed;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Claimed>, sqlx::Error> {
        let tree = tx.tree(&self.0).await?;
        if let Some(Tree { owner: Some(mark), lease_until, .. }) = &tree
            && owner::holds(mark, *lease_until, tx.now)
        {
            return Ok(Ok(Claimed::Held { by: owner::in_words(mark) }));
        }
        let epoch = tree.map_or(0, |t| t.epoch) + 1;
        let lease_until = until(tx.now, tx.options);
        tx.set(&self.0, Tree { epoch, owner: Some(tx.me().to_owned()), lease_until }).await?;
        Ok(Ok(Claimed::Lease(Lease { root: self.0.clone(), epoch })))
    }
    fn lease(output: &Claimed) -> Option<&Lease> {
        match output {
            Claimed::Lease(lease) => Some(lease),
            Claimed::Held { .. } => None,
        }
    }
}

/// Gives a tree back, or the commands that wait for its owner.
pub(super) struct Release(pub(super) Lease);

#[async_trait]
impl Job for Release {
    type Output = Vec<Command>;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Vec<Command>>, sqlx::Error> {
        if !tx.holds(&self.0).await? {
            return Ok(Ok(Vec::new()));
        }
        let waiting = inbox::take_all(tx, &self.0.root).await?;
        if waiting.is_empty() {
            tx.set(&self.0.root, Tree { epoch: self.0.epoch, owner: None, lease_until: 0 }).await?;
        }
        Ok(Ok(waiting))
    }
}

fn until(now: u64, options: &Options) -> u64 {
    now.saturating_add(u64::try_from(options.lease.as_millis()).unwrap_or(u64::MAX))
}

/// Says that this process still works on its trees.
pub(super) async fn renew(connection: &mut SqliteConnection, options: &Options) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE trees SET lease_until = ? WHERE owner = ?")
        .bind(signed(until(now(), options)))
        .bind(&options.owner)
        .execute(connection)
        .await
        .map(drop)
}

/// Gives trees back without looking for commands: somebody who cares finds those in the inbox.
pub(super) async fn give_back(
    connection: &mut SqliteConnection,
    held: &Held,
    options: &Options,
) -> Result<(), sqlx::Error> {
    if held.is_empty() {
        return Ok(());
    }
    begin(connection).await?;
    let done = hand_over(connection, held, options).await;
    finish(connection, done).await
}

async fn hand_over(connection: &mut SqliteConnection, held: &Held, options: &Options) -> Result<(), sqlx::Error> {
    for (root, epoch) in held {
        sqlx::query("UPDATE trees SET owner = NULL, lease_until = 0 WHERE root = ? AND epoch = ? AND owner = ?")
            .bind(root.as_str())
            .bind(signed(*epoch))
            .bind(&options.owner)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

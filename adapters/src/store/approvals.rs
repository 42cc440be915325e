//! Questions about clients' own calls, and the standing rules that answers make.
//!
//! ```text
//!                ┌─ already open ─▶ that one: however often a call is made, a person is asked once
//!  a call ─ ask ─┼─ too many ─────▶ refused
//!                └─ open ─┬─ settle(deny) ─▶ heard by the same call for some minutes
//!                         ├─ settle(allow) ─▶ given ─┬─ spend ─▶ used up, by one such call
//!                         │                          └─ an hour, asked again ─▶ good for nothing
//!                         └─ expired, taken back ─▶ `ends`
//! ```

use super::lease::Tx;
use super::writer::{Job, Verdict};
use super::{Store, StoreError, ends, owner, signed};
use async_trait::async_trait;
use policies::resolve::ApprovalsSpec;
use policies::standing::Standing;
use sqlx::Row;
use std::time::Duration;
use subagents::approval;
use subagents::ports::{Answer, JournalError, Question};

/// So long a yes is good for, at most.
const GIVEN: Duration = Duration::from_secs(60 * 60);
/// So long a no is heard.
const REFUSED: Duration = Duration::from_secs(10 * 60);

/// What became of asking about a client's own call.
#[derive(Debug, Clone, PartialEq)]
pub enum Asking {
    /// It is asked now.
    Asked,
    /// It was asked already: this question.
    Before(Box<Question>),
    /// Too much is asked, in words.
    Full(String),
}

/// What a person said to a call before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// Nothing that still holds.
    Nothing,
    /// Yes. It is used up by having been asked for.
    Yes {
        /// The question.
        question: String,
        /// Who said it.
        by: String,
    },
    /// No.
    No {
        /// The question.
        question: String,
        /// Who said it.
        by: String,
        /// A word to the caller.
        note: Option<String>,
    },
}

/// How many approvals are open of a client (?1), and of one tree (?2) or of no tree among them.
pub(super) const COUNT: &str = "SELECT count(*), coalesce(sum(root IS ?2), 0) FROM questions
    WHERE closed_at IS NULL AND kind = 'approval' AND principal = ?1";
/// What holds for a call: what was said to the newest question about it. Whatever was said before
/// that one was asked holds no more.
pub(super) const HOLDS: &str = "SELECT id, closed_by, answer FROM questions
    WHERE rowid = (SELECT max(rowid) FROM questions WHERE principal = ?1 AND digest = ?2 AND digest IS NOT NULL)
      AND closed_at IS NOT NULL AND answer IS NOT NULL AND used_at IS NULL AND good_until > ?3";
/// The rules that stand for a client's calls of a tool.
pub(super) const STANDING: &str = "SELECT body FROM rules WHERE principal = ? AND tool = ? AND revoked_at IS NULL";
/// A page of all that stand, newest first; ?1 is the client, ?2 how many.
pub(super) const NEWEST: &str = "SELECT body FROM rules
    WHERE revoked_at IS NULL AND (?1 IS NULL OR principal = ?1) ORDER BY at DESC, id LIMIT ?2";

struct Ask {
    question: Question,
    body: String,
    digest: String,
    limits: ApprovalsSpec,
}

#[async_trait]
impl Job for Ask {
    type Output = Asking;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Asking>, sqlx::Error> {
        ends::lapse(tx).await?;
        let Question { id, principal, kind, asked, expires, .. } = &self.question;
        let same = "SELECT body FROM questions
            WHERE principal = ? AND digest = ? AND digest IS NOT NULL AND closed_at IS NULL";
        let before: Option<String> =
            sqlx::query_scalar(same).bind(principal).bind(&self.digest).fetch_optional(&mut *tx.connection).await?;
        if let Some(before) = before {
            let before: Question = serde_json::from_str(&before).map_err(|e| sqlx::Error::Decode(e.into()))?;
            wait(tx, &before.id).await?;
            return Ok(Ok(Asking::Before(Box::new(before))));
        }
        let count = sqlx::query(COUNT).bind(principal).bind(None::<&str>).fetch_one(&mut *tx.connection).await?;
        let open = (number(count.try_get(0)?), number(count.try_get(1)?));
        if let Err(why) = approval::room(&self.limits, open, "this client's own calls") {
            return Ok(Ok(Asking::Full(why)));
        }
        let ask =
            "INSERT INTO questions (id, principal, kind, asked, expires, body, digest) VALUES (?, ?, ?, ?, ?, ?, ?)";
        sqlx::query(ask)
            .bind(id)
            .bind(principal)
            .bind(kind)
            .bind(signed(*asked))
            .bind(expires.map(signed))
            .bind(&self.body)
            .bind(&self.digest)
            .execute(&mut *tx.connection)
            .await?;
        wait(tx, id).await?;
        Ok(Ok(Asking::Asked))
    }
}

/// This process waits for a question.
async fn wait(tx: &mut Tx<'_>, question: &str) -> Result<(), sqlx::Error> {
    let wait = "INSERT OR IGNORE INTO question_waits (question, mark) VALUES (?, ?)";
    sqlx::query(wait).bind(question).bind(owner::own()).execute(&mut *tx.connection).await.map(drop)
}

fn number(n: i64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

struct Settle {
    id: String,
    by: String,
    answer: Answer,
    words: String,
}

#[async_trait]
impl Job for Settle {
    type Output = ();
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<()>, sqlx::Error> {
        let open = "SELECT body FROM questions WHERE id = ?1 AND closed_at IS NULL AND root IS NULL
            AND (expires IS NULL OR expires > ?2)";
        let open: Option<String> =
            sqlx::query_scalar(open).bind(&self.id).bind(signed(tx.now)).fetch_optional(&mut *tx.connection).await?;
        let Some(body) = open else {
            return Ok(Err(JournalError::Failed(format!("question {} is not open any more", self.id))));
        };
        let (always, holds) = match &self.answer {
            Answer::Allow { always, .. } => (always.is_some(), GIVEN),
            _ => (false, REFUSED),
        };
        let question: Question = serde_json::from_str(&body).map_err(|e| sqlx::Error::Decode(e.into()))?;
        // Never longer than the question itself would have stood.
        let stood = question.expires.map_or(u64::MAX, |e| e.saturating_sub(question.asked));
        let holds = stood.min(u64::try_from(holds.as_millis()).unwrap_or(u64::MAX));
        let close = "UPDATE questions SET closed_by = ?2, closed_at = ?3, noted_at = ?3, answer = ?4, good_until = ?5,
            used_at = ?6 WHERE id = ?1";
        sqlx::query(close)
            .bind(&self.id)
            .bind(&self.by)
            .bind(signed(tx.now))
            .bind(&self.words)
            .bind(signed(tx.now.saturating_add(holds)))
            // A rule says yes to the call from now on; once more would be once too often when it is revoked.
            .bind(always.then_some(signed(tx.now)))
            .execute(&mut *tx.connection)
            .await?;
        stand(tx, &question, &self.answer, &self.by).await?;
        Ok(Ok(()))
    }
}

/// Makes the rule that an answer makes, if it makes one.
pub(super) async fn stand(tx: &mut Tx<'_>, question: &Question, answer: &Answer, by: &str) -> Result<(), sqlx::Error> {
    let Answer::Allow { always: Some(always), .. } = answer else { return Ok(()) };
    let rule = match approval::rule(question, always, by, tx.now) {
        Ok(rule) => rule,
        // It was refused before it came here; without the rule the answer is good once.
        Err(why) => {
            tracing::warn!("{} makes no rule: {why}", question.id);
            return Ok(());
        }
    };
    let body = serde_json::to_string(&rule).map_err(|e| sqlx::Error::Encode(e.into()))?;
    sqlx::query("INSERT OR IGNORE INTO rules (id, principal, tool, at, body) VALUES (?, ?, ?, ?, ?)")
        .bind(&rule.id)
        .bind(&rule.principal)
        .bind(&rule.tool)
        .bind(signed(rule.at))
        .bind(body)
        .execute(&mut *tx.connection)
        .await
        .map(drop)
}

struct Spend {
    principal: String,
    digest: String,
}

#[async_trait]
impl Job for Spend {
    type Output = Given;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<Given>, sqlx::Error> {
        let now = signed(tx.now);
        let row = sqlx::query(HOLDS).bind(&self.principal).bind(&self.digest).bind(now);
        let Some(row) = row.fetch_optional(&mut *tx.connection).await? else { return Ok(Ok(Given::Nothing)) };
        let (question, by): (String, String) = (row.try_get("id")?, row.try_get("closed_by")?);
        let answer: String = row.try_get("answer")?;
        match serde_json::from_str(&answer).map_err(|e| sqlx::Error::Decode(e.into()))? {
            Answer::Allow { .. } => {
                sqlx::query("UPDATE questions SET used_at = ? WHERE id = ?")
                    .bind(now)
                    .bind(&question)
                    .execute(&mut *tx.connection)
                    .await?;
                Ok(Ok(Given::Yes { question, by }))
            }
            Answer::Deny { note } | Answer::Input { note, .. } => Ok(Ok(Given::No { question, by, note })),
        }
    }
}

struct Revoke {
    id: String,
    by: String,
}

#[async_trait]
impl Job for Revoke {
    type Output = bool;
    async fn perform(&self, tx: &mut Tx<'_>) -> Result<Verdict<bool>, sqlx::Error> {
        let revoke = "UPDATE rules SET revoked_by = ?, revoked_at = ? WHERE id = ? AND revoked_at IS NULL";
        let done = sqlx::query(revoke).bind(&self.by).bind(signed(tx.now)).bind(&self.id);
        Ok(Ok(done.execute(&mut *tx.connection).await?.rows_affected() > 0))
    }
}

impl Store {
    /// Asks about a client's own call, which is named by a digest of all that an answer is bound to.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn ask(&self, question: Question, digest: &str, limits: ApprovalsSpec) -> Result<Asking, JournalError> {
        let body = serde_json::to_string(&question).map_err(|e| JournalError::Failed(e.to_string()))?;
        self.writer.perform(Ask { question, body, digest: digest.to_owned(), limits }).await
    }
    pub(super) async fn settled(&self, id: &str, by: &str, answer: &Answer) -> Result<(), JournalError> {
        let words = serde_json::to_string(answer).map_err(|e| JournalError::Failed(e.to_string()))?;
        let job = Settle { id: id.to_owned(), by: by.to_owned(), answer: answer.clone(), words };
        let done = self.writer.perform(job).await;
        self.closing.look();
        done
    }
    /// Takes what a person said to a call; a yes is used up.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn spend(&self, principal: &str, digest: &str) -> Result<Given, JournalError> {
        self.writer.perform(Spend { principal: principal.to_owned(), digest: digest.to_owned() }).await
    }
    pub(super) async fn approvals_open(&self, principal: &str, root: Option<&str>) -> Result<(u32, u32), StoreError> {
        let row = sqlx::query(COUNT).bind(principal).bind(root).fetch_one(&self.pool).await;
        let row = row.map_err(|e| self.failed(e))?;
        let at = |i: usize| row.try_get::<i64, _>(i).map(number).map_err(|e| self.failed(e));
        Ok((at(0)?, at(1)?))
    }
    /// The rules that stand for a client's calls of a tool.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn standing(&self, principal: &str, tool: &str) -> Result<Vec<Standing>, StoreError> {
        let query = sqlx::query_scalar(STANDING).bind(principal).bind(tool);
        self.rules_of(query.fetch_all(&self.pool).await)
    }
    /// All that stand, newest first: a client's, or everybody's.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn rules(&self, principal: Option<&str>, limit: u32) -> Result<Vec<Standing>, StoreError> {
        let query = sqlx::query_scalar(NEWEST).bind(principal).bind(limit);
        self.rules_of(query.fetch_all(&self.pool).await)
    }
    /// Takes a rule back; `false` where none of that id stands.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn revoke(&self, id: &str, by: &str) -> Result<bool, JournalError> {
        self.writer.perform(Revoke { id: id.to_owned(), by: by.to_owned() }).await
    }
    fn rules_of(&self, rows: Result<Vec<String>, sqlx::Error>) -> Result<Vec<Standing>, StoreError> {
        let rows = rows.map_err(|e| self.failed(e))?;
        // One that cannot be read stands for nobody, and keeps no other from standing: an older pleach
        // beside this one may have written it.
        let read = |body: &String| match serde_json::from_str(body) {
            Ok(rule) => Some(rule),
            Err(e) => {
                tracing::warn!("{}", self.corrupt("standing rule", 0, &e));
                None
            }
        };
        Ok(rows.iter().filter_map(read).collect())
    }
}

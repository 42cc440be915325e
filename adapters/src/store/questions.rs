//! What people are asked: opened and closed with the events that say so.

use super::lease::Tx;
use super::{Store, StoreError, approvals, signed, unsigned};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::collections::BTreeSet;
use subagents::approval;
use subagents::ports::{Answer, JournalError, Question, QuestionChange, QuestionFilter, QuestionRow};
use subagents::run::RunId;

/// Whether the changes can be made: a question is answered once.
pub(super) async fn check(
    tx: &mut Tx<'_>,
    changes: impl Iterator<Item = &QuestionChange>,
) -> Result<Result<(), JournalError>, sqlx::Error> {
    let mut opened = BTreeSet::new();
    let mut answered = BTreeSet::new();
    for change in changes {
        match change {
            QuestionChange::Open(question) => {
                opened.insert(question.id.as_str());
            }
            QuestionChange::Close { id, answer: Some(_), .. } => {
                let fresh = opened.contains(id.as_str()) || is_open(tx, id).await?;
                if !fresh || !answered.insert(id.as_str()) {
                    return Ok(Err(JournalError::Failed(format!("question {id} is not open any more"))));
                }
            }
            QuestionChange::Close { answer: None, .. } => {}
        }
    }
    Ok(Ok(()))
}

async fn is_open(tx: &mut Tx<'_>, id: &str) -> Result<bool, sqlx::Error> {
    let open: Option<i64> = sqlx::query_scalar("SELECT 1 FROM questions WHERE id = ? AND closed_at IS NULL")
        .bind(id)
        .fetch_optional(&mut *tx.connection)
        .await?;
    Ok(open.is_some())
}

/// Makes a change that was checked.
pub(super) async fn change(tx: &mut Tx<'_>, change: &QuestionChange) -> Result<(), sqlx::Error> {
    let encode = |e: serde_json::Error| sqlx::Error::Encode(e.into());
    match change {
        QuestionChange::Open(question) => {
            let body = serde_json::to_string(question).map_err(encode)?;
            sqlx::query(
                "INSERT INTO questions (id, run, root, principal, kind, asked, expires, body)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            )
            .bind(&question.id)
            .bind(&question.run)
            .bind(&question.root)
            .bind(&question.principal)
            .bind(&question.kind)
            .bind(signed(question.asked))
            .bind(question.expires.map(signed))
            .bind(body)
            .execute(&mut *tx.connection)
            .await
            .map(drop)
        }
        QuestionChange::Close { id, by, answer, at } => {
            let said = answer.as_ref().map(serde_json::to_string).transpose().map_err(encode)?;
            if let Some(answer @ Answer::Allow { always: Some(_), .. }) = answer {
                let asked: Option<String> = sqlx::query_scalar("SELECT body FROM questions WHERE id = ?")
                    .bind(id)
                    .fetch_optional(&mut *tx.connection)
                    .await?;
                if let Some(body) = asked {
                    let question = serde_json::from_str(&body).map_err(|e| sqlx::Error::Decode(e.into()))?;
                    approvals::stand(tx, &question, answer, by).await?;
                }
            }
            sqlx::query(
                "UPDATE questions SET closed_by = ?1, closed_at = ?2, answer = ?3, noted_at = ?5
                 WHERE id = ?4 AND closed_at IS NULL",
            )
            .bind(by)
            .bind(signed(*at))
            .bind(said)
            .bind(id)
            // What a person says is on record before it comes here.
            .bind((answer.is_some() && by != approval::ENDED).then_some(signed(*at)))
            .execute(&mut *tx.connection)
            .await
            .map(drop)
        }
    }
}

/// A query for a page of open questions, oldest first. ?1 is the principal, ?2 the tree, ?3 and ?4
/// the question before the page, ?5 how many.
macro_rules! asked {
    ($more:literal) => {
        concat!(
            "SELECT coalesce(run, '') AS run, body FROM questions WHERE closed_at IS NULL ",
            $more,
            " AND (asked, id) > (?3, ?4) ORDER BY asked, id LIMIT ?5"
        )
    };
}

/// A statement for each of the usual questions, so that each has its index.
pub(super) const OF_ROOT: &str = asked!("AND root = ?2 AND (?1 IS NULL OR principal = ?1)");
pub(super) const OF_PRINCIPAL: &str = asked!("AND principal = ?1");
pub(super) const OF_ALL: &str = asked!("");
pub(super) const EXPIRED: &str = "SELECT root FROM questions
    WHERE closed_at IS NULL AND expires <= ? AND root IS NOT NULL ORDER BY expires";
/// Those whose id ends in a text.
pub(super) const NAMED: &str = "SELECT coalesce(run, '') AS run, body FROM questions
    WHERE closed_at IS NULL AND substr(id, -length(?1)) = ?1 ORDER BY asked, id LIMIT ?2";

impl Store {
    pub(super) async fn question_row(&self, id: &str) -> Result<Option<QuestionRow>, StoreError> {
        let row = sqlx::query(
            "SELECT coalesce(run, '') AS run, body, closed_by, closed_at, answer FROM questions WHERE id = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .map_err(|e| self.failed(e))?;
        let Some(row) = row else { return Ok(None) };
        let question = self.question_of(&row)?;
        let by: Option<String> = row.try_get("closed_by").map_err(|e| self.failed(e))?;
        let at: Option<i64> = row.try_get("closed_at").map_err(|e| self.failed(e))?;
        let answer: Option<String> = row.try_get("answer").map_err(|e| self.failed(e))?;
        let answer = answer.map(|text| serde_json::from_str(&text)).transpose();
        let answer = answer.map_err(|e| self.corrupt(&question.run, 0, &e))?;
        Ok(Some(QuestionRow { question, closed: at.map(|at| (by.unwrap_or_default(), unsigned(at))), answer }))
    }

    pub(super) async fn questions_open(&self, filter: &QuestionFilter) -> Result<Vec<Question>, StoreError> {
        let sql = match filter {
            QuestionFilter { root: Some(_), .. } => OF_ROOT,
            QuestionFilter { principal: Some(_), .. } => OF_PRINCIPAL,
            QuestionFilter { .. } => OF_ALL,
        };
        // No question was asked before the beginning, and SQLite reads -1 as no limit.
        let (at, id) = filter.after.as_ref().map_or((-1, ""), |(at, id)| (signed(*at), id));
        let rows = sqlx::query(sql)
            .bind(filter.principal.as_deref())
            .bind(filter.root.as_ref().map(|r| r.as_str()))
            .bind(at)
            .bind(id)
            .bind(filter.limit.map_or(-1, i64::from))
            .fetch_all(&self.pool)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.question_of(row)).collect()
    }

    /// The open questions whose id ends in `part`, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn questions_named(&self, part: &str, limit: u32) -> Result<Vec<Question>, StoreError> {
        let query = sqlx::query(NAMED).bind(part).bind(limit);
        let rows = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.question_of(row)).collect()
    }

    /// Trees whose questions' time was over at `at`, longest over first.
    pub(super) async fn questions_expired(&self, at: u64) -> Result<Vec<RunId>, StoreError> {
        let query = sqlx::query_scalar::<_, String>(EXPIRED).bind(signed(at));
        let roots = query.fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let mut seen = BTreeSet::new();
        Ok(roots.iter().map(|root| RunId::known(root)).filter(|root| seen.insert(root.clone())).collect())
    }

    pub(super) fn question_of(&self, row: &SqliteRow) -> Result<Question, StoreError> {
        let run: String = row.try_get("run").map_err(|e| self.failed(e))?;
        let body: String = row.try_get("body").map_err(|e| self.failed(e))?;
        serde_json::from_str(&body).map_err(|e| self.corrupt(&run, 0, &e))
    }
}

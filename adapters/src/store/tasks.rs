//! What the A2A door asks: the tasks of a client, which are its root runs, page by page.

use super::{Listed, Store, StoreError, signed, unsigned};
use sqlx::{QueryBuilder, Row, Sqlite};

/// Which tasks. All fields must match; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TasksFilter {
    /// Of this client.
    pub principal: String,
    /// Of this agent.
    pub agent: String,
    /// Of this conversation.
    pub context: Option<String>,
    /// In this state, as the protocol writes it.
    pub state: Option<String>,
    /// With a change at this time or after it, milliseconds since 1970 UTC.
    pub after: Option<u64>,
}

/// A page of them.
#[derive(Debug, Clone, PartialEq)]
pub struct TasksPage {
    /// The runs, latest change first, each with the time of that change.
    pub tasks: Vec<(Listed, u64)>,
    /// How many match in all.
    pub total: u64,
}

/// Root runs with what the protocol knows of them: when they last changed, their conversation and
/// their state. What a task waits for is what was asked first and is still open.
const TASKS: &str = "SELECT r.run AS run,
    (SELECT e.at FROM positions AS p JOIN events AS e ON e.run = p.run AND e.seq = p.seq
        WHERE p.root = r.run ORDER BY p.n DESC LIMIT 1) AS changed,
    coalesce((SELECT json_extract(body, '$.inbound.context') FROM events WHERE events.run = r.run AND seq = 1), r.run)
        AS context,
    CASE
        WHEN r.ended IS NOT NULL THEN CASE r.state
            WHEN 'completed' THEN 'TASK_STATE_COMPLETED' WHEN 'cancelled' THEN 'TASK_STATE_CANCELED'
            WHEN 'rejected' THEN 'TASK_STATE_REJECTED' ELSE 'TASK_STATE_FAILED' END
        ELSE coalesce(
            (SELECT CASE json_extract(body, '$.kind') WHEN 'approval' THEN 'TASK_STATE_AUTH_REQUIRED'
                ELSE 'TASK_STATE_INPUT_REQUIRED' END
                FROM questions WHERE root = r.run AND closed_at IS NULL ORDER BY asked, id LIMIT 1),
            CASE WHEN EXISTS (SELECT 1 FROM events WHERE events.run = r.run AND type = 'model.requested')
                THEN 'TASK_STATE_WORKING' ELSE 'TASK_STATE_SUBMITTED' END)
    END AS task_state
    FROM runs AS r WHERE r.parent IS NULL AND r.principal = ";

fn matching(query: &mut QueryBuilder<Sqlite>, filter: &TasksFilter) {
    query.push_bind(&filter.principal).push(" AND r.agent = ").push_bind(&filter.agent).push(") AS t WHERE 1");
    if let Some(context) = &filter.context {
        query.push(" AND context = ").push_bind(context);
    }
    if let Some(state) = &filter.state {
        query.push(" AND task_state = ").push_bind(state);
    }
    if let Some(after) = filter.after {
        query.push(" AND changed >= ").push_bind(signed(after));
    }
}

impl Store {
    /// The tasks of a client, latest change first, after the one that `after` names by its change
    /// and id.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn tasks(
        &self,
        filter: &TasksFilter,
        after: Option<(u64, &str)>,
        limit: u32,
    ) -> Result<TasksPage, StoreError> {
        let mut count: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT count(*) AS n FROM (");
        count.push(TASKS);
        matching(&mut count, filter);
        let total = count.build().fetch_one(&self.pool).await.and_then(|row| row.try_get::<i64, _>("n"));
        let total = unsigned(total.map_err(|e| self.failed(e))?);
        let mut query: QueryBuilder<Sqlite> = QueryBuilder::new("SELECT run, changed FROM (");
        query.push(TASKS);
        matching(&mut query, filter);
        if let Some((changed, run)) = after {
            query.push(" AND (changed, run) < (").push_bind(signed(changed)).push(", ").push_bind(run).push(")");
        }
        query.push(" ORDER BY changed DESC, run DESC LIMIT ").push_bind(limit);
        let rows = query.build().fetch_all(&self.pool).await.map_err(|e| self.failed(e))?;
        let mut tasks = Vec::new();
        for row in rows {
            let run: String = row.try_get("run").map_err(|e| self.failed(e))?;
            let changed: i64 = row.try_get("changed").map_err(|e| self.failed(e))?;
            if let Some(listed) = self.run_of(&filter.principal, &run).await? {
                tasks.push((listed, unsigned(changed)));
            }
        }
        Ok(TasksPage { tasks, total })
    }
}

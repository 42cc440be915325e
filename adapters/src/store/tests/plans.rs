//! Every question that is asked while many trees wait has its index: a store of a hundred thousand
//! answers it as quickly as an empty one.

use super::*;
use crate::store::{Between, PeerDoor, PeerFilter, approvals, closing, ends, outbox, peers, push, questions, read};
use sqlx::Row;

/// How SQLite goes about a statement.
async fn plan(store: &Store, sql: &str, values: usize) -> String {
    let explain = format!("EXPLAIN QUERY PLAN {sql}");
    let mut query = sqlx::query(sqlx::AssertSqlSafe(explain));
    for _ in 0..values {
        query = query.bind(1);
    }
    let rows = query.fetch_all(&store.pool).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn what_is_asked_now_and_then_has_its_index() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let statements = [
        (questions::OF_ALL, 5, "questions_open ((asked,id)>"),
        (questions::OF_PRINCIPAL, 5, "questions_open_principal (principal=? AND (asked,id)>"),
        (questions::OF_ROOT, 5, "questions_open_root (root=? AND (asked,id)>"),
        (questions::EXPIRED, 1, "questions_expiring (expires<?)"),
        (read::UNFINISHED, 0, "runs_going"),
        (read::UNFINISHED, 0, "runs_above"),
        (read::UNFINISHED, 0, "runs_parent (parent=?)"),
        (read::NEWEST, 1, "runs_newest"),
        (approvals::COUNT, 2, "questions_approvals (principal=?)"),
        (approvals::HOLDS, 3, "questions_of_call (principal=? AND digest=?)"),
        (closing::OPEN, 1, "sqlite_autoindex_questions_1 (id=?)"),
        (ends::UNNOTED, 1, "questions_unnoted"),
        (ends::UNMARKED, 0, "questions_unnoted"),
        (ends::LAPSED, 1, "questions_expiring (expires<?)"),
        (ends::LAPSE, 2, "questions_expiring (expires<?)"),
        (ends::OLD, 1, "questions_ended (closed_at>? AND closed_at<?)"),
        (approvals::STANDING, 2, "rules_standing (principal=? AND tool=?)"),
        (outbox::DUE, 5, "outbox_due (endpoint=? AND next<?)"),
        (outbox::DUE, 5, "outbox_due (endpoint>?)"),
        (outbox::NEXT, 2, "outbox_due (endpoint=?)"),
    ];
    for (sql, values, index) in statements {
        let plan = plan(&store, sql, values).await;
        assert!(plan.contains(index), "{index}: {sql}\n{plan}");
        // A page comes out of its index in order; only messages to tell are put together.
        let sorts = plan.contains("TEMP B-TREE FOR ORDER BY") && sql != outbox::DUE;
        assert!(!sorts, "{sql}\n{plan}");
    }
    store.close().await;
}

/// The same of what is asked for each message to a peer, each question about its task, and each config.
#[tokio::test]
async fn what_peers_gave_out_has_its_index() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let of = Between { principal: "a".into(), peer: "p".into(), door: PeerDoor::Tool };
    let by_name = "peer_tasks_named (principal=? AND peer=? AND door=? AND task=?)";
    let by_ours = "sqlite_autoindex_peer_tasks_1 (id=?)";
    let context = "sqlite_autoindex_peer_contexts_1 (principal=? AND peer=? AND door=? AND id=?)";
    let statements = [
        (peers::ANSWERED, 5, by_name),
        (peers::UNANSWERED, 5, by_name),
        (peers::EXPIRED, 5, "USING INDEX peer_tasks_"),
        (peers::CALLED, 9, by_name),
        (peers::HEARD, 8, by_ours),
        (peers::HEARD_OF, 6, context),
        (peers::HEARD_OF, 6, by_ours),
        (peers::KNOWN, 3, "sqlite_autoindex_peer_messages_1 (principal=? AND peer=? AND known=?)"),
        (peers::CONTEXT, 4, context),
        (peers::EXPIRING, 3, "peer_tasks_expiring (principal=? AND peer=?"),
        (peers::OLD, 1, "peer_messages_old (at<?)"),
        (peers::OLD, 1, "peer_contexts_old (changed<?)"),
        (peers::OLD, 1, "peer_tasks_old (used<?)"),
        (peers::TIDY[0], 1, "peer_messages_old (at<?)"),
        (peers::TIDY[1], 1, "peer_contexts_old (changed<?)"),
        (peers::TIDY[2], 1, "peer_tasks_old (used<?)"),
        (push::MOVED, 4, "outbox_config (root=? AND config=?)"),
        (push::ENDED, 3, "outbox_config (root=? AND config=?)"),
    ];
    let (all, none) =
        (PeerFilter { context: Some("c".into()), state: Some("s".into()), after: Some(1) }, PeerFilter::default());
    let listed = "peer_tasks_listed (principal=? AND peer=? AND door=?";
    let built = [
        (peers::one(&of, "id", "x"), by_ours),
        (peers::one(&of, "task", "x"), by_name),
        (peers::counted(&of, &none), "peer_tasks_"),
        (peers::listed(&of, &none, None, 10), listed),
        (peers::listed(&of, &none, Some((1, "x")), 10), listed),
        (peers::listed(&of, &all, Some((1, "x")), 10), listed),
    ];
    let built: Vec<(String, &str)> =
        built.iter().map(|(query, index)| (query.sql().as_str().to_owned(), *index)).collect();
    let built = built.iter().map(|(sql, index)| (sql.as_str(), sql.matches('?').count(), *index));
    for (sql, values, index) in statements.into_iter().chain(built) {
        let plan = plan(&store, sql, values).await;
        assert!(plan.contains(index), "{index}: {sql}\n{plan}");
        assert!(!plan.contains("SCAN peer_") && !plan.contains("SCAN outbox"), "{sql}\n{plan}");
        // How many of its questions wait is few; a page comes out of its index in order.
        assert!(!plan.contains("TEMP B-TREE FOR ORDER BY") || sql == peers::EXPIRING, "{sql}\n{plan}");
    }
    store.close().await;
}

/// The benign twin of the above: a test that reads plans must be able to fail.
#[tokio::test]
async fn a_question_without_an_index_is_seen() {
    let place = place();
    let store = Store::open(&place.path).await.unwrap();
    let plan = plan(&store, "SELECT body FROM questions WHERE closed_by = ? ORDER BY answer", 1).await;
    assert!(plan.contains("SCAN questions") && plan.contains("TEMP B-TREE FOR ORDER BY"), "{plan}");
    store.close().await;
}

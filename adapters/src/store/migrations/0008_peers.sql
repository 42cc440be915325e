-- What A2A peers gave out, and to whom: all clients share what the operator gave to be shown to a
-- peer, so the peer cannot tell them apart. Whoever goes on with a task or a conversation over
-- there is found here, after a restart too.
CREATE TABLE peer_tasks (
    -- Our name of it.
    id TEXT NOT NULL PRIMARY KEY,
    principal TEXT NOT NULL,
    -- The peer's name in the policy file and the digest of its card's address.
    peer TEXT NOT NULL,
    -- 'tool': a skill was called; 'a2a': it is passed on as a task.
    door TEXT NOT NULL,
    -- The skill it was begun for; '' where none was named.
    skill TEXT NOT NULL,
    -- The peer's name of it, once it said.
    task TEXT,
    -- Our name of its conversation.
    context TEXT NOT NULL,
    -- How it stands as far as was heard; its status as the client is shown it.
    state TEXT NOT NULL,
    status TEXT,
    -- The question somebody was asked and did not answer yet, and when nobody will any more.
    asked TEXT,
    expires INTEGER,
    -- When that was first heard of, and when it was heard of last.
    changed INTEGER NOT NULL,
    used INTEGER NOT NULL
);
CREATE INDEX peer_tasks_theirs ON peer_tasks (principal, peer, task);
CREATE INDEX peer_tasks_listed ON peer_tasks (principal, peer, door, changed DESC, id DESC);
CREATE INDEX peer_tasks_expiring ON peer_tasks (principal, peer, expires) WHERE expires IS NOT NULL;
CREATE INDEX peer_tasks_old ON peer_tasks (used);

CREATE TABLE peer_contexts (
    principal TEXT NOT NULL,
    peer TEXT NOT NULL,
    door TEXT NOT NULL,
    -- Our name of it, and the peer's, once it said.
    id TEXT NOT NULL,
    context TEXT,
    skill TEXT NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (principal, peer, door, id)
);
CREATE INDEX peer_contexts_theirs ON peer_contexts (principal, peer, context);
CREATE INDEX peer_contexts_old ON peer_contexts (changed);

-- Messages that were passed on, so that a repetition is told from another one.
CREATE TABLE peer_messages (
    principal TEXT NOT NULL,
    peer TEXT NOT NULL,
    known TEXT NOT NULL,
    said TEXT NOT NULL,
    -- The task it was said to, by our name.
    id TEXT NOT NULL,
    -- The peer answered it.
    done INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (principal, peer, known)
);
CREATE INDEX peer_messages_old ON peer_messages (at);

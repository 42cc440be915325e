-- A task of a peer is looked for by the name it has there.
CREATE INDEX peer_tasks_named ON peer_tasks (principal, peer, door, task) WHERE task IS NOT NULL;
DROP INDEX peer_tasks_theirs;

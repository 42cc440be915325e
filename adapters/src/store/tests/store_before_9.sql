INSERT INTO questions (id, principal, kind, asked, expires, body, digest) VALUES
    ('q-open', 'ci', 'approval', 1000, 9000000000000, '{"id":"q-open","principal":"ci","kind":"approval","text":"may client ci call s__put?","detail":{"tool":"s__put","arguments":{},"manifest":"h","touches":[]},"chain":["root policy"],"asked":1000,"expires":9000000000000}', 'd-open');
INSERT INTO questions (id, principal, kind, asked, expires, body, closed_by, closed_at, answer, digest, good_until, used_at) VALUES
    ('q-done', 'ci', 'approval', 1000, 9000000000000, '{"id":"q-done","principal":"ci","kind":"approval","text":"may client ci call s__put?","detail":{"tool":"s__put","arguments":{},"manifest":"h","touches":[]},"chain":["root policy"],"asked":1000,"expires":9000000000000}', 'boss', 2000, '{"verdict":"allow","always":{"of":"tool"}}', 'd-done', 3000, 2000);
INSERT INTO rules (id, principal, tool, at, body) VALUES
    ('a-done', 'ci', 's__put', 2000, '{"id":"a-done","principal":"ci","chain":["root policy"],"tool":"s__put","manifest":"h","by":"boss","at":2000,"question":"q-done"}');

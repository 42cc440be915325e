INSERT INTO runs (run, parent, root, depth, agent, state, turns, tool_calls, tokens, started, ended, owner) VALUES
('r-old1', NULL, 'r-old1', 0, 'coordinator', 'completed', 2, 1, 1020, 1790000000000, 1790000002000, 'OWNER'),
('r-old2', 'r-old1', 'r-old1', 1, 'researcher', 'completed', 1, 0, 60, 1790000000500, 1790000001000, 'OWNER'),
('r-old3', NULL, 'r-old3', 0, 'coordinator', 'acting', 1, 1, 10, 1790000009000, NULL, 'OWNER');
INSERT INTO events (run, seq, at, type, body) VALUES
('r-old1', 1, 1790000000000, 'run.started', '{"type":"run.started","agent":"coordinator","model":"default","system":"You lead.","prompt":"Go.","parent":null,"root":"r-old1","depth":0,"principal":"local","max_turns":100,"max_tool_calls":4294967295}'),
('r-old1', 2, 1790000000001, 'model.requested', '{"type":"model.requested","turn":0}'),
('r-old1', 3, 1790000000100, 'model.replied', '{"type":"model.replied","text":"I ask.","calls":[{"id":"t1","name":"Agent","input":{"prompt":"Read a.md","subagent_type":"researcher"}}],"stop":"tool_use","usage":{"input":900,"output":60}}'),
('r-old1', 4, 1790000000101, 'tool.requested', '{"type":"tool.requested","id":"t1","name":"Agent","input":{"prompt":"Read a.md","subagent_type":"researcher"}}'),
('r-old1', 5, 1790000000102, 'tool.decided', '{"type":"tool.decided","id":"t1","verdict":"allow","rule":"subagents (pleach.toml:9)","chain":["local","run r-old1"]}'),
('r-old1', 6, 1790000001100, 'tool.finished', '{"type":"tool.finished","id":"t1","outcome":"ok","text":"A says yes."}'),
('r-old1', 7, 1790000001101, 'model.requested', '{"type":"model.requested","turn":1}'),
('r-old1', 8, 1790000001900, 'model.replied', '{"type":"model.replied","text":"Merged.","calls":[],"stop":"end_turn","usage":{"input":40,"output":20,"cache_read":10},"answered_by":"m-2"}'),
('r-old1', 9, 1790000002000, 'run.finished', '{"type":"run.finished","state":"completed","text":"Merged."}'),
('r-old2', 1, 1790000000500, 'run.started', '{"type":"run.started","agent":"researcher","model":"default","system":"","prompt":"Read a.md","parent":"r-old1","root":"r-old1","depth":1,"principal":"local","max_turns":100,"max_tool_calls":4294967295}'),
('r-old2', 2, 1790000000501, 'model.requested', '{"type":"model.requested","turn":0}'),
('r-old2', 3, 1790000000900, 'model.replied', '{"type":"model.replied","text":"A says yes.","calls":[],"stop":"end_turn","usage":{"input":50,"output":10}}'),
('r-old2', 4, 1790000001000, 'run.finished', '{"type":"run.finished","state":"completed","text":"A says yes."}'),
('r-old3', 1, 1790000009000, 'run.started', '{"type":"run.started","agent":"coordinator","model":"default","system":"You lead.","prompt":"Again.","parent":null,"root":"r-old3","depth":0,"principal":"ci","max_turns":100,"max_tool_calls":4294967295}'),
('r-old3', 2, 1790000009001, 'model.requested', '{"type":"model.requested","turn":0}'),
('r-old3', 3, 1790000009100, 'model.replied', '{"type":"model.replied","text":"","calls":[{"id":"t1","name":"files__Read","input":{"path":"a.md"}}],"stop":"tool_use","usage":{"input":8,"output":2}}');

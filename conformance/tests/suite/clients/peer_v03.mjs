// A peer written with the official JavaScript SDK, 0.3: `peer_v03.mjs KITS`. Says where it is.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const kits = process.argv[2];
const of = (name) => import(pathToFileURL(createRequire(kits + '/').resolve(name)));
const express = (await of('express')).default;
const { DefaultRequestHandler, InMemoryTaskStore } = await of('@a2a-js/sdk/server');
const { agentCardHandler, jsonRpcHandler, UserBuilder } = await of('@a2a-js/sdk/server/express');

const executor = {
  async execute({ userMessage, task, taskId, contextId }, bus) {
    const status = (state, message) => ({ state, message, timestamp: new Date().toISOString() });
    const now = (state, final, message) => bus.publish({ kind: 'status-update', taskId, contextId, status: status(state, message), final });
    const text = userMessage.parts.find((part) => part.kind == 'text').text;
    bus.publish(task ?? { kind: 'task', id: taskId, contextId, status: status('submitted'), history: [userMessage] });
    if (text == 'ask') {
      const parts = [{ kind: 'text', text: 'Which?' }];
      now('input-required', true, { kind: 'message', messageId: 'q-' + taskId, role: 'agent', parts, taskId, contextId });
      return bus.finished();
    }
    now('working', false);
    const artifact = { artifactId: 'echo', name: 'echo', parts: [{ kind: 'text', text: 'echo: ' + text }] };
    bus.publish({ kind: 'artifact-update', taskId, contextId, artifact });
    now('completed', true);
    bus.finished();
  },
  async cancelTask() {},
};
const app = express();
const door = app.listen(0, '127.0.0.1', () => {
  const base = 'http://127.0.0.1:' + door.address().port;
  const card = {
    name: 'Echo', description: 'Echoes.', version: '1', protocolVersion: '0.3.0', url: base + '/rpc', preferredTransport: 'JSONRPC',
    capabilities: { streaming: true }, defaultInputModes: ['text/plain'], defaultOutputModes: ['text/plain'],
    skills: [{ id: 'echo', name: 'Echo', description: 'Says it again.', tags: ['t'] }],
  };
  const requestHandler = new DefaultRequestHandler(card, new InMemoryTaskStore(), executor);
  app.use('/.well-known/agent-card.json', agentCardHandler({ agentCardProvider: requestHandler }));
  app.use('/rpc', jsonRpcHandler({ requestHandler, userBuilder: UserBuilder.noAuthentication }));
  console.log(base);
});

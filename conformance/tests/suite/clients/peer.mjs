// A peer written with the official JavaScript SDK, 1.0: `peer.mjs KITS BINDING`. Says where it is.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const [kits, binding] = process.argv.slice(2);
const of = (name) => import(pathToFileURL(createRequire(kits + '/').resolve(name)));
const express = (await of('express')).default;
const { TaskState } = await of('@a2a-js/sdk');
const { AgentEvent, DefaultRequestHandler, InMemoryTaskStore } = await of('@a2a-js/sdk/server');
const { agentCardHandler, jsonRpcHandler, restHandler, UserBuilder } = await of('@a2a-js/sdk/server/express');

const parts = (text) => [{ content: { $case: 'text', value: text }, metadata: {}, filename: '', mediaType: '' }];
const executor = {
  async execute({ userMessage, task, taskId, contextId }, bus) {
    const status = (state, message = undefined) => ({ state, message, timestamp: new Date().toISOString() });
    const now = (state, message) => bus.publish(AgentEvent.statusUpdate({ taskId, contextId, status: status(state, message), metadata: {} }));
    const text = userMessage.parts.map((part) => part.content.value).find((value) => typeof value == 'string');
    bus.publish(AgentEvent.task(task ?? {
      id: taskId, contextId, status: status(TaskState.TASK_STATE_SUBMITTED), artifacts: [], history: [userMessage], metadata: {},
    }));
    if (text == 'ask') {
      now(TaskState.TASK_STATE_INPUT_REQUIRED, {
        messageId: 'q-' + taskId, contextId, taskId, role: 2, parts: parts('Which?'), metadata: {}, extensions: [], referenceTaskIds: [],
      });
      return bus.finished();
    }
    now(TaskState.TASK_STATE_WORKING);
    const artifact = { artifactId: 'echo', name: 'echo', description: '', parts: parts('echo: ' + text), metadata: {}, extensions: [] };
    bus.publish(AgentEvent.artifactUpdate({ taskId, contextId, artifact, append: false, lastChunk: true, metadata: {} }));
    now(TaskState.TASK_STATE_COMPLETED);
    bus.finished();
  },
  async cancelTask() {},
};
const app = express();
const door = app.listen(0, '127.0.0.1', () => {
  const base = 'http://127.0.0.1:' + door.address().port;
  const url = { JSONRPC: base + '/rpc', 'HTTP+JSON': base + '/rest' }[binding];
  const card = {
    name: 'Echo', description: 'Echoes.', version: '1', documentationUrl: '', iconUrl: '', provider: undefined, signatures: [],
    supportedInterfaces: [{ url, protocolBinding: binding, protocolVersion: '1.0', tenant: '' }],
    capabilities: { streaming: true, pushNotifications: false, extensions: [], extendedAgentCard: false },
    securitySchemes: {}, securityRequirements: [], defaultInputModes: ['text/plain'], defaultOutputModes: ['text/plain'],
    skills: [{
      id: 'echo', name: 'Echo', description: 'Says it again.', tags: ['t'], examples: [], inputModes: [], outputModes: [], securityRequirements: [],
    }],
  };
  const requestHandler = new DefaultRequestHandler(card, new InMemoryTaskStore(), executor);
  const all = { requestHandler, userBuilder: UserBuilder.noAuthentication };
  app.use('/.well-known/agent-card.json', agentCardHandler({ agentCardProvider: requestHandler }));
  app.use('/rpc', jsonRpcHandler(all));
  app.use('/rest', restHandler(all));
  console.log(base);
});

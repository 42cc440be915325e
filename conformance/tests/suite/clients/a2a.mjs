// The official JavaScript SDK, 1.0: `a2a.mjs BASE`. Prints one JSON object.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const { ClientFactory } = await import(pathToFileURL(createRequire(process.argv[3] + '/').resolve('@a2a-js/sdk/client')));
const client = await new ClientFactory().createFromUrl(process.argv[2]);
const message = (messageId, text, more = {}) => ({
  message: {
    messageId, role: 1, parts: [{ content: { $case: 'text', value: text }, metadata: {}, filename: '', mediaType: '' }],
    contextId: '', taskId: '', metadata: {}, extensions: [], referenceTaskIds: [], ...more,
  },
  configuration: undefined, metadata: {}, tenant: '',
});
const said = { stream: [] };
for await (const event of client.sendMessageStream(message('js-1', 'go'))) said.stream.push(event.payload.$case);
const asks = await client.sendMessage(message('tck-input-required-js', 'go'));
said.asks = asks.status.message.parts[0].content.value;
const done = await client.sendMessage(message('js-2', 'red', { taskId: asks.id, contextId: asks.contextId }));
said.answered = done.artifacts[0].parts[0].content.value;
const other = await client.sendMessage(message('tck-input-required-js-c', 'go'));
said.cancelled = (await client.cancelTask({ id: other.id, tenant: '', metadata: {} })).status.state;
console.log(JSON.stringify(said));

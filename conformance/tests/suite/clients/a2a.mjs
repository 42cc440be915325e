// The official JavaScript SDK, 1.0: `a2a.mjs BASE KITS BINDING HOOK`. Prints one JSON object.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const [base, kits, binding, hook] = process.argv.slice(2);
const { ClientFactory, ClientFactoryOptions } = await import(pathToFileURL(createRequire(kits + '/').resolve('@a2a-js/sdk/client')));
const options = ClientFactoryOptions.createFrom(ClientFactoryOptions.default, { preferredTransports: [binding] });
const client = await new ClientFactory(options).createFromUrl(base);
const message = (messageId, text, more = {}, configuration = undefined) => ({
  message: {
    messageId: messageId + binding, role: 1, contextId: '', taskId: '', metadata: {}, extensions: [], referenceTaskIds: [],
    parts: [{ content: { $case: 'text', value: text }, metadata: {}, filename: '', mediaType: '' }], ...more,
  },
  configuration, metadata: {}, tenant: '',
});
const config = (taskId, id, more = {}) => ({ tenant: '', id, taskId, url: hook + '/' + id, token: '', authentication: undefined, ...more });
const of = (task, more = {}) => ({ id: task.id, tenant: '', metadata: {}, ...more });
const said = { binding: client.transport.protocolName, stream: [] };
for await (const event of client.sendMessageStream(message('js-1', 'go'))) said.stream.push(event.payload.$case);
// It may be at work already when it is told first.
said.stream = [said.stream[0], ...said.stream.slice(-2)];
const quick = await client.sendMessage(message('js-send', 'go'));
said.sent = [quick.status.state, quick.artifacts[0].parts[0].content.value];

const inline = config('', 'inline', { token: 'sdk-token', authentication: { scheme: 'Bearer', credentials: 'sdk-secret' } });
const asks = await client.sendMessage(message('tck-input-required-js', 'go', {}, {
  acceptedOutputModes: [], taskPushNotificationConfig: inline, historyLength: undefined, returnImmediately: false,
}));
said.task = asks.id;
said.asks = asks.status.message.parts[0].content.value;
said.made = (await client.createTaskPushNotificationConfig(config(asks.id, 'mine'))).url;
said.got = (await client.getTaskPushNotificationConfig({ tenant: '', taskId: asks.id, id: 'mine' })).url;
const listing = { tenant: '', taskId: asks.id, pageSize: 0, pageToken: '' };
said.listed = (await client.listTaskPushNotificationConfig(listing)).configs.length;
const watching = client.resubscribeTask(of(asks));
said.watched = [(await watching.next()).value.payload.value.status.state];
const done = await client.sendMessage(message('js-2', 'red', { taskId: asks.id, contextId: asks.contextId }));
for await (const event of watching) if (event.payload.$case == 'statusUpdate') said.watched.push(event.payload.value.status.state);
said.answered = done.artifacts[0].parts[0].content.value;
said.known = (await client.getTask(of(asks, { historyLength: undefined }))).status.state;
await client.deleteTaskPushNotificationConfig({ tenant: '', taskId: asks.id, id: 'mine' });
said.after = (await client.listTaskPushNotificationConfig(listing)).configs.length;
const other = await client.sendMessage(message('tck-input-required-js-c', 'go'));
said.cancelled = (await client.cancelTask(of(other))).status.state;
console.log(JSON.stringify(said));

// The official JavaScript SDK, 0.3: `a2a_v03.mjs BASE KITS HOOK`. Prints one JSON object.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
const [base, kits, hook] = process.argv.slice(2);
const { ClientFactory } = await import(pathToFileURL(createRequire(kits + '/').resolve('@a2a-js/sdk/client')));
const client = await new ClientFactory().createFromUrl(base);
const message = (messageId, text, more = {}, configuration = undefined) => ({
  message: { kind: 'message', messageId, role: 'user', parts: [{ kind: 'text', text }], ...more }, configuration,
});
const said = { stream: [] };
for await (const event of client.sendMessageStream(message('js03-1', 'go'))) said.stream.push(event.kind);
// It may be at work already when it is told first.
said.stream = [said.stream[0], ...said.stream.slice(-2)];
const quick = await client.sendMessage(message('js03-send', 'go'));
said.sent = [quick.status.state, quick.artifacts[0].parts[0].text];

const inline = { id: 'inline', url: hook + '/inline', token: 'sdk-token', authentication: { schemes: ['Bearer'], credentials: 'sdk-secret' } };
const asks = await client.sendMessage(message('tck-input-required-js03', 'go', {}, { pushNotificationConfig: inline }));
said.task = asks.id;
said.asks = asks.status.message.parts[0].text;
const mine = { id: 'mine', url: hook + '/mine' };
said.made = (await client.setTaskPushNotificationConfig({ taskId: asks.id, pushNotificationConfig: mine })).pushNotificationConfig.url;
const named = { id: asks.id, pushNotificationConfigId: 'mine' };
said.got = (await client.getTaskPushNotificationConfig(named)).pushNotificationConfig.url;
said.listed = (await client.listTaskPushNotificationConfig({ id: asks.id })).length;
// In 0.3 a question ends a stream: what is watched is under way, or about to be.
const begun = await client.sendMessage(message('test-resubscribe-message-id-js', 'go', {}, { blocking: false }));
said.watched = [];
for await (const event of client.resubscribeTask({ id: begun.id })) said.watched.push(event.status?.state ?? event.artifact.parts[0].text);
const done = await client.sendMessage(message('js03-2', 'red', { taskId: asks.id, contextId: asks.contextId }));
said.watched = said.watched.slice(-3);
said.answered = done.artifacts[0].parts[0].text;
said.known = (await client.getTask({ id: asks.id })).status.state;
await client.deleteTaskPushNotificationConfig(named);
said.after = (await client.listTaskPushNotificationConfig({ id: asks.id })).length;
const other = await client.sendMessage(message('tck-input-required-js03-c', 'go'));
said.cancelled = (await client.cancelTask({ id: other.id })).status.state;
console.log(JSON.stringify(said));

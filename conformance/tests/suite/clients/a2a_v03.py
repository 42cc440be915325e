"""The official Python SDK, 0.3: `a2a_v03.py BASE HOOK`; HOOK is "" where nothing is pushed. Prints one JSON object."""
import asyncio, json, sys
import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (GetTaskPushNotificationConfigParams, Message, Part, PushNotificationAuthenticationInfo,
                       PushNotificationConfig, Role, TaskIdParams, TaskPushNotificationConfig, TaskQueryParams, TextPart)

base, hook = sys.argv[1:]


def message(id, text, **more):
    return Message(message_id=id, role=Role.user, parts=[Part(root=TextPart(text=text))], **more)


async def last(client, said):
    end = None
    async for event in client.send_message(said):
        end = event[0] if isinstance(event, tuple) else event
    return end


async def watched(http, card):
    """What is heard of a task under way, or about to be: in 0.3 a question ends a stream."""
    asking = ClientFactory(ClientConfig(httpx_client=http, streaming=False, polling=True)).create(card)
    begun = await last(asking, message("test-resubscribe-message-id-py", "go"))
    states = []
    async for task, _ in ClientFactory(ClientConfig(httpx_client=http)).create(card).resubscribe(
            TaskIdParams(id=begun.id)):
        states.append(task.status.state)
    return [*states[-3:], task.artifacts[0].parts[0].root.text]


async def pushed(http, card):
    auth = PushNotificationAuthenticationInfo(schemes=["Bearer"], credentials="sdk-secret")
    inline = PushNotificationConfig(id="inline", url=hook + "/inline", token="sdk-token", authentication=auth)
    config = ClientConfig(httpx_client=http, push_notification_configs=[inline])
    client = ClientFactory(config).create(card)
    asks = await last(client, message("tck-input-required-p", "go"))
    mine = PushNotificationConfig(id="mine", url=hook + "/mine")
    made = await client.set_task_callback(TaskPushNotificationConfig(task_id=asks.id, push_notification_config=mine))
    got = await client.get_task_callback(
        GetTaskPushNotificationConfigParams(id=asks.id, push_notification_config_id="mine"))
    await last(client, message("p-red", "red", task_id=asks.id, context_id=asks.context_id))
    return [asks.id, made.push_notification_config.url, got.push_notification_config.url]


async def main():
    said = {}
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        for streaming in (True, False):
            client = ClientFactory(ClientConfig(httpx_client=http, streaming=streaming)).create(card)
            done = await last(client, message(f"s-{streaming}", "go"))
            asks = await last(client, message(f"tck-input-required-{streaming}", "go"))
            follow = message(f"f-{streaming}", "red", task_id=asks.id, context_id=asks.context_id)
            answered = await last(client, follow)
            got = await client.get_task(TaskQueryParams(id=answered.id))
            asks_too = await last(client, message(f"tck-input-required-c-{streaming}", "go"))
            cancelled = await client.cancel_task(TaskIdParams(id=asks_too.id))
            said["stream" if streaming else "send"] = [
                done.status.state, done.artifacts[0].parts[0].root.text, asks.status.state,
                asks.status.message.parts[0].root.text, got.status.state, got.artifacts[0].parts[0].root.text,
                cancelled.status.state,
            ]
        said["message"] = (await last(client, message("tck-message-response-1", "go"))).kind
        said["watched"] = await watched(http, card)
        if hook:
            said["push"] = await pushed(http, card)
    print(json.dumps(said))


asyncio.run(main())

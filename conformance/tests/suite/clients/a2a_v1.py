"""The official Python SDK, 1.0: `a2a_v1.py BASE BINDING`. Prints one JSON object."""
import asyncio, json, sys
from urllib.parse import urlsplit
import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (CancelTaskRequest, DeleteTaskPushNotificationConfigRequest, GetTaskRequest,
                       ListTaskPushNotificationConfigsRequest, ListTasksRequest, Message, Part, Role,
                       SendMessageRequest, SubscribeToTaskRequest, TaskPushNotificationConfig, TaskState)
from a2a.utils.errors import A2AError

base, binding = sys.argv[1:]


def message(id, text, **more):
    return SendMessageRequest(message=Message(message_id=id, role=Role.ROLE_USER, parts=[Part(text=text)], **more))


def state(value):
    return TaskState.Name(value).removeprefix("TASK_STATE_")


async def talk(client, request):
    kinds, last = [], None
    async for event in client.send_message(request):
        kind = event.WhichOneof("payload")
        kinds.append(kind)
        if kind == "task":
            last = event.task
    return kinds, last


async def refused(asked):
    try:
        await asked
    except A2AError as error:
        return type(error).__name__


async def configs(client, task):
    config = TaskPushNotificationConfig(task_id=task.id, id="c-1", url="http://127.0.0.1:9/told")
    listing = ListTaskPushNotificationConfigsRequest(task_id=task.id)
    try:
        await client.create_task_push_notification_config(config)
    except A2AError as error:
        return type(error).__name__
    kept = (await client.list_task_push_notification_configs(listing)).configs
    await client.delete_task_push_notification_config(
        DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="c-1"))
    left = (await client.list_task_push_notification_configs(listing)).configs
    return [len(kept), kept[0].id, len(left)]


async def main():
    said = {}
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        config = dict(httpx_client=http, supported_protocol_bindings=[binding], use_client_preference=True)
        if binding == "GRPC":
            # It is on no card: whoever wants it knows where.
            import grpc
            config["grpc_channel_factory"] = grpc.aio.insecure_channel
            del card.supported_interfaces[:]
            card.supported_interfaces.add(url=urlsplit(base).netloc, protocol_binding="GRPC",
                                          protocol_version="1.0", tenant="tck")
        client = ClientFactory(ClientConfig(**config)).create(card)
        said["stream"], task = await talk(client, message("s-" + binding, "go"))
        got = await client.get_task(GetTaskRequest(id=task.id))
        said["got"] = [state(got.status.state), got.artifacts[0].parts[0].text]
        _, task = await talk(client, message("tck-input-required-" + binding, "go"))
        got = await client.get_task(GetTaskRequest(id=task.id))
        said["asks"] = [state(got.status.state), got.status.message.parts[0].text]

        async def watch():
            states = []
            async for event in client.subscribe(SubscribeToTaskRequest(id=task.id)):
                kind = event.WhichOneof("payload")
                if kind == "task":
                    states.append(state(event.task.status.state))
                    ready.set()
                if kind == "status_update":
                    states.append(state(event.status_update.status.state))
            return states

        ready = asyncio.Event()
        watching = asyncio.create_task(watch())
        await ready.wait()
        await talk(client, message("f-" + binding, "red", task_id=task.id, context_id=task.context_id))
        said["watched"] = await watching
        got = await client.get_task(GetTaskRequest(id=task.id))
        said["answered"] = [state(got.status.state), got.artifacts[0].parts[0].text]
        _, task = await talk(client, message("tck-input-required-c-" + binding, "go"))
        said["cancelled"] = state((await client.cancel_task(CancelTaskRequest(id=task.id))).status.state)
        said["message"], _ = await talk(ClientFactory(ClientConfig(streaming=False, **config)).create(card),
                                        message("tck-message-response-" + binding, "go"))
        listed = await client.list_tasks(ListTasksRequest(page_size=2))
        said["listed"] = [len(listed.tasks), bool(listed.next_page_token)]
        said["missing"] = await refused(client.get_task(GetTaskRequest(id="nobody-s")))
        said["configs"] = await configs(client, (await talk(client, message("tck-input-required-p-" + binding, "go")))[1])
    print(json.dumps(said))


asyncio.run(main())

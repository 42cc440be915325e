"""The official Python SDK, 1.0, and push notifications: `a2a_push.py BASE BINDING HOOK`."""
import asyncio, json, sys
import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (AuthenticationInfo, DeleteTaskPushNotificationConfigRequest,
                       GetTaskPushNotificationConfigRequest, ListTaskPushNotificationConfigsRequest, Message, Part, Role,
                       SendMessageConfiguration, SendMessageRequest, TaskPushNotificationConfig)

base, binding, hook = sys.argv[1:]


def request(id, text, config=None, **more):
    asked = SendMessageRequest(message=Message(message_id=id, role=Role.ROLE_USER, parts=[Part(text=text)], **more))
    if config:
        asked.configuration.CopyFrom(SendMessageConfiguration(task_push_notification_config=config))
    return asked


async def last(client, asked):
    task = None
    async for event in client.send_message(asked):
        if event.WhichOneof("payload") == "task":
            task = event.task
    return task


async def main():
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        client = ClientFactory(ClientConfig(httpx_client=http, supported_protocol_bindings=[binding],
                                            use_client_preference=True)).create(card)
        auth = AuthenticationInfo(scheme="Bearer", credentials="sdk-secret")
        inline = TaskPushNotificationConfig(url=hook + "/inline", token="sdk-token", authentication=auth)
        task = await last(client, request("tck-input-required-" + binding, "go", inline))
        made = await client.create_task_push_notification_config(
            TaskPushNotificationConfig(task_id=task.id, id="mine", url=hook + "/mine"))
        got = await client.get_task_push_notification_config(
            GetTaskPushNotificationConfigRequest(task_id=task.id, id="mine"))
        listed = await client.list_task_push_notification_configs(
            ListTaskPushNotificationConfigsRequest(task_id=task.id))
        secrets = sorted(c.token + c.authentication.credentials for c in listed.configs)
        await last(client, request("answer-" + binding, "red", task_id=task.id, context_id=task.context_id))
        await client.delete_task_push_notification_config(
            DeleteTaskPushNotificationConfigRequest(task_id=task.id, id="mine"))
        after = await client.list_task_push_notification_configs(
            ListTaskPushNotificationConfigsRequest(task_id=task.id))
        print(json.dumps({"push": card.capabilities.push_notifications, "task": task.id, "made": made.url,
                          "got": got.url, "listed": len(listed.configs), "secrets": secrets,
                          "after": len(after.configs)}))


asyncio.run(main())

"""The official Python SDK, 0.3: `a2a_v03.py BASE`. Prints one JSON object."""
import asyncio, json, sys
import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import Message, Part, Role, TaskIdParams, TaskQueryParams, TextPart


def message(id, text, **more):
    return Message(message_id=id, role=Role.user, parts=[Part(root=TextPart(text=text))], **more)


async def last(client, said):
    end = None
    async for event in client.send_message(said):
        end = event[0] if isinstance(event, tuple) else event
    return end


async def main():
    said = {}
    async with httpx.AsyncClient(timeout=30) as http:
        card = await A2ACardResolver(http, sys.argv[1]).get_agent_card()
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
    print(json.dumps(said))


asyncio.run(main())

"""google-adk's RemoteA2aAgent, which needs no model: `a2a_adk.py CARD MODE`. Prints one JSON object."""
import asyncio, json, sys, warnings
warnings.simplefilter("ignore")
import httpx
from a2a.client import ClientConfig, ClientFactory
from google.adk.agents.remote_a2a_agent import RemoteA2aAgent
from google.adk.runners import Runner
from google.adk.sessions import InMemorySessionService
from google.genai import types

card, mode = sys.argv[1:]


async def main():
    async with httpx.AsyncClient(timeout=30) as http:
        factory = ClientFactory(ClientConfig(httpx_client=http, streaming=mode == "stream"))
        agent = RemoteA2aAgent(name="remote", agent_card=card, a2a_client_factory=factory)
        sessions = InMemorySessionService()
        runner = Runner(agent=agent, app_name="app", session_service=sessions)
        session = await sessions.create_session(app_name="app", user_id="u")
        told = {"states": [], "texts": [], "calls": [], "errors": [], "tasks": []}

        async def say(*parts):
            content = types.Content(role="user", parts=list(parts))
            async for event in runner.run_async(user_id="u", session_id=session.id, new_message=content):
                metadata = event.custom_metadata or {}
                answer = metadata.get("a2a:response") or {}
                told["states"].append((answer.get("status") or {}).get("state"))
                told["tasks"].append(metadata.get("a2a:task_id"))
                if event.error_message:
                    told["errors"].append(event.error_message)
                for part in (event.content.parts if event.content else None) or []:
                    if part.text and not part.thought:
                        told["texts"].append(part.text)
                    if part.function_call:
                        told["calls"].append(part.function_call)

        await say(types.Part(text="go"))
        asked = told["calls"].pop()
        said = {"asked": asked.args}
        # A person's answer is a response to the call that ADK made of the question.
        await say(types.Part(function_response=types.FunctionResponse(id=asked.id, name=asked.name,
                                                                      response={"result": "red"})))
        said["tasks"] = len({task for task in told["tasks"] if task})
        # It may be at work already when it is told first.
        states = {state for state in told["states"] if state} - {"TASK_STATE_SUBMITTED"}
        said["last"], said["states"] = told["texts"][-1], sorted(states)
        said["errors"], said["calls"] = told["errors"], len(told["calls"])
        # It goes on in the same conversation.
        before = told["tasks"][-1]
        await say(types.Part(text="more"))
        said["another"] = told["tasks"][-1] != before and bool(told["calls"])
        await runner.close()
    print(json.dumps(said))


asyncio.run(main())

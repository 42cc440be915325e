"""A peer written with the official Python SDK, 1.0: `peer_v1.py MORE_PACKAGES BINDING`. Says its port."""
import socket, sys
sys.path.append(sys.argv[1])
import uvicorn
from starlette.applications import Starlette
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (AgentCapabilities, AgentCard, AgentInterface, AgentSkill, Part, Task, TaskState, TaskStatus)


class Echo(AgentExecutor):
    async def execute(self, context, queue):
        text = context.get_user_input()
        if context.current_task is None:
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            await queue.enqueue_event(Task(id=context.task_id, context_id=context.context_id, status=status,
                                           history=[context.message]))
        updater = TaskUpdater(queue, context.task_id, context.context_id)
        if text == "ask":
            await updater.requires_input(message=updater.new_agent_message([Part(text="Which?")]))
            return
        await updater.start_work()
        await updater.add_artifact([Part(text="echo: " + text)], name="echo")
        await updater.complete()

    async def cancel(self, context, queue):
        await TaskUpdater(queue, context.task_id, context.context_id).cancel()


door = socket.create_server(("127.0.0.1", 0))
base = "http://127.0.0.1:%d" % door.getsockname()[1]
interface = {"JSONRPC": base + "/", "HTTP+JSON": base + "/rest"}[sys.argv[2]]
card = AgentCard(
    name="Echo", description="Echoes.", version="1", default_input_modes=["text/plain"], default_output_modes=["text/plain"],
    capabilities=AgentCapabilities(streaming=True),
    supported_interfaces=[AgentInterface(url=interface, protocol_binding=sys.argv[2], protocol_version="1.0")],
    skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["t"])])
handler = DefaultRequestHandler(agent_executor=Echo(), task_store=InMemoryTaskStore(), agent_card=card)
routes = [*create_agent_card_routes(card), *create_jsonrpc_routes(handler, "/"), *create_rest_routes(handler, path_prefix="/rest")]
print(base, flush=True)
uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_level="error")).run(sockets=[door])

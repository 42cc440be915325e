"""A peer written with the official Python SDK, 0.3: `peer_v03.py MORE_PACKAGES`. Says its port."""
import socket, sys
sys.path.append(sys.argv[1])
import uvicorn
from a2a.server.agent_execution import AgentExecutor
from a2a.server.apps import A2AStarletteApplication
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import AgentCapabilities, AgentCard, AgentSkill, Part, TaskState, TextPart
from a2a.utils import new_task


class Echo(AgentExecutor):
    async def execute(self, context, queue):
        text = context.get_user_input()
        task = context.current_task
        if task is None:
            task = new_task(context.message)
            await queue.enqueue_event(task)
        updater = TaskUpdater(queue, task.id, task.context_id)
        if text == "ask":
            message = updater.new_agent_message([Part(root=TextPart(text="Which?"))])
            await updater.update_status(TaskState.input_required, message=message, final=True)
            return
        await updater.start_work()
        await updater.add_artifact([Part(root=TextPart(text="echo: " + text))], name="echo")
        await updater.complete()

    async def cancel(self, context, queue):
        await TaskUpdater(queue, context.task_id, context.context_id).cancel()


door = socket.create_server(("127.0.0.1", 0))
base = "http://127.0.0.1:%d" % door.getsockname()[1]
card = AgentCard(
    name="Echo", description="Echoes.", url=base + "/", version="1", default_input_modes=["text/plain"],
    default_output_modes=["text/plain"], capabilities=AgentCapabilities(streaming=True),
    skills=[AgentSkill(id="echo", name="Echo", description="Says it again.", tags=["t"])])
handler = DefaultRequestHandler(agent_executor=Echo(), task_store=InMemoryTaskStore())
app = A2AStarletteApplication(agent_card=card, http_handler=handler).build()
print(base, flush=True)
uvicorn.Server(uvicorn.Config(app, log_level="error")).run(sockets=[door])

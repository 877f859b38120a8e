"""The whole stack on this machine, without Docker or a server: Kafka, PostgreSQL, Valkey, the stages.

await run(Plan(data), on_progress=print)     in the foreground, until Ctrl-C
detach(argv, data, on_line=print)            in the background, until `stop(data)`
discover()                                   the stack that runs, found by any other process
"""

from pipeline.embedded.background import detach, stop
from pipeline.embedded.keeper import Phase, Progress
from pipeline.embedded.plan import Plan, Process
from pipeline.embedded.state import PartState, Stack, default_data, discover, state_dir
from pipeline.embedded.supervisor import run, running, serve

__all__ = [
    "PartState",
    "Phase",
    "Plan",
    "Process",
    "Progress",
    "Stack",
    "default_data",
    "detach",
    "discover",
    "run",
    "running",
    "serve",
    "state_dir",
    "stop",
]

"""The composition root: settings in, running stages out. It alone knows every class.

A stage names the ports it needs as the arguments of its `stage` function; they are opened when a stage
first asks for them, shared by the stages of the process, and closed after the last batch. Heavy packages
are imported by the process that uses them.
"""

from pipeline.app.mem0 import mem0_opening
from pipeline.app.mending import open_for_comparing, open_for_rebuilding
from pipeline.app.neighbours import Addresses, addresses
from pipeline.app.ports import look_for_models, open_ports, unheard
from pipeline.app.running import run
from pipeline.app.stages import SOURCES, source_processes, stage_modules, stage_processes

__all__ = [
    "SOURCES",
    "Addresses",
    "addresses",
    "look_for_models",
    "mem0_opening",
    "open_for_comparing",
    "open_for_rebuilding",
    "open_ports",
    "run",
    "source_processes",
    "stage_modules",
    "stage_processes",
    "unheard",
]

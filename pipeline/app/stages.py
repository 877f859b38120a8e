"""What there is to run, by name: the stages of `consumers`, what runs beside them, and the ports each names."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import consumers
from pipeline.embedded.plan import Process
from pipeline.embedded.state import Stack
from pipeline.errors import Refused
from pipeline.settings import Settings
from pipeline.stage import Desk, Stage

SOURCES = ("mem0",)
"""What runs beside the stages, by name: reads elsewhere and publishes here."""


def stage_modules() -> Mapping[str, ModuleType]:
    """Every stage by name: the modules of `consumers`, in the order of the stream."""
    names = [module.name for module in pkgutil.iter_modules(consumers.__path__)]
    modules = {name: importlib.import_module(f"consumers.{name}") for name in names}
    return {name: modules[name] for name in sorted(modules, key=_place)}


def _place(name: str) -> tuple[int, str]:
    known = [
        "classifier",
        "embedder",
        "record_writer",
        "vector_writer",
        "contextualizer",
        "query",
        "operator_desk",
        "lifecycle",
        "tier_writer",
    ]
    return (known.index(name) if name in known else len(known), name)


def stage_processes(settings: Settings, stack: Stack) -> Sequence[Process]:
    """The processes that `up` keeps: one a stage, but one for all that own the Edge directory."""
    modules = stage_modules()
    owners = (
        [] if settings.qdrant_url else [n for n in modules if "vectors" in ports_of(modules[n])]
    )
    groups = [[name] for name in modules if name not in owners]
    groups += [owners] if owners else []
    run = [sys.executable, "-m", "pipeline.cli", "run", "--data", str(stack.data)]
    return [Process("+".join(group), [*run, *group]) for group in groups]


def source_processes(settings: Settings, stack: Stack) -> Sequence[Process]:
    """The processes that `up` keeps beside the stages: the poller, where there is a Mem0 to watch."""
    if not settings.watches_mem0:
        return []
    argv = [sys.executable, "-m", "pipeline.cli", "run", "--data", str(stack.data), "mem0"]
    return [Process("mem0", argv)]


def wanted_by(names: Sequence[str]) -> list[str]:
    """The ports that these stages name. Raises Refused for a stage that is not there."""
    modules = stage_modules()
    unknown = [name for name in names if name not in modules]
    if unknown:
        raise Refused(f"No such stage: {', '.join(unknown)}. There are {', '.join(modules)}.")
    return [port for name in names for port in ports_of(modules[name])]


def ports_of(module: ModuleType) -> list[str]:
    """The ports that a stage names, as the arguments of its `stage`."""
    return list(inspect.signature(module.stage).parameters)


def built(names: Sequence[str], ports: Mapping[str, Any]) -> list[Stage | Desk]:
    """The stages of these names, given their ports."""
    modules = stage_modules()
    return [
        modules[name].stage(**{port: ports[port] for port in ports_of(modules[name])})
        for name in names
    ]

"""What a stack is to be made of, and the parts that follow from it."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.embedded.kafka_node import KafkaNode, NodePorts
from pipeline.embedded.ports import keep_ports
from pipeline.embedded.postgres_node import PostgresNode
from pipeline.embedded.process import Command
from pipeline.embedded.state import Stack
from pipeline.embedded.valkey_node import ValkeyNode

@dataclass(frozen=True)
class Process:
    """A stage to keep running: its command line, and the environment it needs beside ours."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict[str, str])


def no_stages(_: Stack) -> Sequence[Process]:
    return ()


@dataclass(frozen=True)
class Plan:
    """What to run. An address given here is used, and that part is not started.

    `ports` may name "kafka", "kafka-controller", "postgres" and "valkey"; the others are free ones,
    the same as last time where possible. `kafka_jars` is a folder of jars, None to have them fetched.
    """

    data: Path
    kafka_bootstrap_servers: str | None = None
    postgres_dsn: str | None = None
    redis_url: str | None = None
    kafka_jars: Path | None = None
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    stages: Callable[[Stack], Sequence[Process]] = no_stages


class Part(Protocol):
    name: str

    @property
    def address(self) -> str: ...
    async def prepare(self, say: Callable[[str], None]) -> None: ...
    def command(self) -> Command: ...
    async def ready(self) -> bool: ...


def parts_of(plan: Plan) -> dict[str, Part]:
    names: list[str] = []
    names += [] if plan.kafka_bootstrap_servers else ["kafka", "kafka-controller"]
    names += [] if plan.postgres_dsn else ["postgres"]
    names += [] if plan.redis_url else ["valkey"]
    ports = keep_ports(plan.data / "ports.json", names, plan.ports)
    parts: list[Part] = []
    if "kafka" in ports:
        node = NodePorts(ports["kafka"], ports["kafka-controller"])
        parts.append(KafkaNode(plan.data, [node], plan.kafka_jars))
    if "postgres" in ports:
        parts.append(PostgresNode(plan.data, ports["postgres"]))
    if "valkey" in ports:
        parts.append(ValkeyNode(plan.data, ports["valkey"]))
    return {part.name: part for part in parts}


def stack_of(plan: Plan, parts: Mapping[str, Part]) -> Stack:
    kafka = plan.kafka_bootstrap_servers or parts["kafka"].address
    postgres, valkey = parts.get("postgres"), parts.get("valkey")
    return Stack(
        data=plan.data,
        pid=os.getpid(),
        started_at=time.time(),
        kafka_bootstrap_servers=kafka,
        postgres_dsn=postgres.dsn
        if isinstance(postgres, PostgresNode)
        else plan.postgres_dsn or "",
        redis_url=valkey.url if isinstance(valkey, ValkeyNode) else plan.redis_url or "",
        qdrant_path=plan.data / "qdrant",
    )

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


@dataclass(frozen=True)
class Parts:
    """The parts that are started here; None where an address was given."""

    kafka: KafkaNode | None
    postgres: PostgresNode | None
    valkey: ValkeyNode | None

    def by_name(self) -> dict[str, Part]:
        all_parts: tuple[Part | None, ...] = (self.kafka, self.postgres, self.valkey)
        return {part.name: part for part in all_parts if part}


def parts_of(plan: Plan) -> Parts:
    """The parts to start, each with its port; Refused where a given port cannot be had."""
    names = [] if plan.kafka_bootstrap_servers else ["kafka", "kafka-controller"]
    names += [] if plan.postgres_dsn else ["postgres"]
    names += [] if plan.redis_url else ["valkey"]
    ports = keep_ports(plan.data / "ports.json", names, plan.ports)
    return Parts(
        kafka=_kafka(plan, ports) if "kafka" in ports else None,
        postgres=PostgresNode(plan.data, ports["postgres"]) if "postgres" in ports else None,
        valkey=ValkeyNode(plan.data, ports["valkey"]) if "valkey" in ports else None,
    )


def _kafka(plan: Plan, ports: Mapping[str, int]) -> KafkaNode:
    node = NodePorts(ports["kafka"], ports["kafka-controller"])
    return KafkaNode(plan.data, [node], plan.kafka_jars)


def stack_of(plan: Plan, parts: Parts) -> Stack:
    """Every address, given or started here; the pids are told later."""
    kafka, postgres, valkey = parts.kafka, parts.postgres, parts.valkey
    return Stack(
        data=plan.data,
        pid=os.getpid(),
        started_at=time.time(),
        kafka_bootstrap_servers=kafka.address if kafka else plan.kafka_bootstrap_servers or "",
        postgres_dsn=postgres.dsn if postgres else plan.postgres_dsn or "",
        redis_url=valkey.url if valkey else plan.redis_url or "",
        qdrant_path=plan.data / "qdrant",
    )

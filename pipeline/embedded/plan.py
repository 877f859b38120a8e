"""What a stack is to be made of, and the parts that follow from it."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Protocol

from pipeline.embedded.kafka_node import KafkaNode, NodePorts, kept_cluster, node_name
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
    the same as last time where possible. `brokers` is how many nodes Kafka has: None for as many as
    the data were made with, one for new ones. `kafka_advertised` are ports where clients are sent
    instead of to the nodes themselves. `kafka_jars` is a folder of jars, None to have them fetched.
    One that stands `aside` leaves the commands that name no data to another stack that runs.
    """

    data: Path
    kafka_bootstrap_servers: str | None = None
    postgres_dsn: str | None = None
    redis_url: str | None = None
    kafka_jars: Path | None = None
    brokers: int | None = None
    kafka_advertised: Sequence[int] = ()
    ports: Mapping[str, int] = field(default_factory=dict[str, int])
    stages: Callable[[Stack], Sequence[Process]] = no_stages
    aside: bool = False


class Part(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def address(self) -> str: ...
    async def prepare(self, say: Callable[[str], None]) -> None: ...
    def command(self) -> Command: ...
    async def ready(self) -> bool: ...


@dataclass(frozen=True)
class Parts:
    """The parts that are started here; none where an address was given."""

    kafka: Sequence[KafkaNode]
    postgres: PostgresNode | None
    valkey: ValkeyNode | None

    def by_name(self) -> dict[str, Part]:
        all_parts: tuple[Part | None, ...] = (*self.kafka, self.postgres, self.valkey)
        return {part.name: part for part in all_parts if part}


def parts_of(plan: Plan) -> Parts:
    """The parts to start, each with its port.

    Raises Refused where a given port cannot be had, or the data belong to another number of brokers.
    """
    here = not plan.kafka_bootstrap_servers
    cluster = kept_cluster(plan.data, plan.brokers) if here else None
    nodes = [node_name(number + 1) for number in range(cluster.brokers)] if cluster else []
    names = [name for node in nodes for name in (node, _controller(node))]
    names += [] if plan.postgres_dsn else ["postgres"]
    names += [] if plan.redis_url else ["valkey"]
    ports = keep_ports(plan.data / "ports.json", names, plan.ports)
    listening = [
        NodePorts(ports[node], ports[_controller(node)], advertised)
        for node, advertised in zip_longest(nodes, plan.kafka_advertised)
    ]
    return Parts(
        kafka=[
            KafkaNode(plan.data, listening, cluster.id, plan.kafka_jars, number)
            for number in range(1, cluster.brokers + 1)
        ]
        if cluster
        else [],
        postgres=PostgresNode(plan.data, ports["postgres"]) if "postgres" in ports else None,
        valkey=ValkeyNode(plan.data, ports["valkey"]) if "valkey" in ports else None,
    )


def _controller(node: str) -> str:
    return f"{node}-controller"


def stack_of(plan: Plan, parts: Parts) -> Stack:
    """Every address, given or started here; the pids are told later."""
    kafka, postgres, valkey = parts.kafka, parts.postgres, parts.valkey
    brokers = ",".join(node.advertised_address for node in kafka)
    return Stack(
        data=plan.data,
        pid=os.getpid(),
        started_at=time.time(),
        kafka_bootstrap_servers=brokers or plan.kafka_bootstrap_servers or "",
        postgres_dsn=postgres.dsn if postgres else plan.postgres_dsn or "",
        redis_url=valkey.url if valkey else plan.redis_url or "",
        qdrant_path=plan.data / "qdrant",
    )

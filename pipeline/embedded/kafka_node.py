"""Apache Kafka itself: KRaft nodes, each of them broker and controller; one of them, or a cluster of three.

A node's folder is formatted beside its place and then moved there, so that a half-formatted one is never
taken for good. It runs with the data folder as its working directory and relative paths: Kafka's
property files would need escapes for what a path may hold.
"""

import json
import logging
import secrets
import shutil
from base64 import urlsafe_b64encode
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.embedded.java import default_cache, fetched_jars, jars_of, java
from pipeline.embedded.ports import HOST, is_open
from pipeline.embedded.process import Command, marked, run_to_end
from pipeline.embedded.state import write_private
from pipeline.errors import Refused

_MIB = 1024 * 1024
_YEAR_MIN = 365 * 24 * 60

_LOGGING = """\
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{yyyy-MM-dd HH:mm:ss.SSS} %p %m (%c{1})%n
# Prints every setting several times.
logger.settings.name = org.apache.kafka.common.config
logger.settings.level = warn
"""


@dataclass(frozen=True)
class NodePorts:
    """Where one node listens, for clients and for the other controllers."""

    broker: int
    controller: int
    advertised: int | None = None
    """Where clients are sent instead, such as to a proxy before the node."""


def properties(node_id: int, nodes: Sequence[NodePorts]) -> dict[str, object]:
    """The settings of node `node_id` (from 1) of a cluster of combined nodes on this machine."""
    own = nodes[node_id - 1]
    copies = min(3, len(nodes))
    in_sync = max(1, copies - 1)
    voters = (f"{number}@{HOST}:{node.controller}" for number, node in enumerate(nodes, start=1))
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node_id,
        "controller.quorum.voters": ",".join(voters),
        "listeners": f"CLIENTS://{HOST}:{own.broker},CONTROLLER://{HOST}:{own.controller}",
        "advertised.listeners": f"CLIENTS://{HOST}:{own.advertised or own.broker}",
        "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENTS",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": f"kafka/{node_id}",
        # After a SIGKILL a node waits for its own old session to expire: 9 s with the defaults.
        "broker.session.timeout.ms": 2000,
        "broker.heartbeat.interval.ms": 500,
        "group.initial.rebalance.delay.ms": 0,
        # No second machine holds a copy: write to the disk every second, not when the system likes.
        "log.flush.interval.ms": 1000,
        "log.flush.scheduler.interval.ms": 1000,
        # A stack may be down for months; its consumers must go on where they were.
        "offsets.retention.minutes": 2 * _YEAR_MIN,
        "auto.create.topics.enable": "false",
        "default.replication.factor": copies,
        "min.insync.replicas": in_sync,
        "message.max.bytes": 2 * _MIB,
        "replica.fetch.max.bytes": 2 * _MIB,
        "log.cleaner.enable": "true",
        # From the heap; the default of 128 MiB is a quarter of ours.
        "log.cleaner.dedupe.buffer.size": 16 * _MIB,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 4,
    }
    for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic"):
        settings[f"{topic}.num.partitions"] = 4
        settings[f"{topic}.replication.factor"] = copies
    for topic in ("transaction.state.log", "share.coordinator.state.topic"):
        settings[f"{topic}.min.isr"] = in_sync
    return settings


def rendered(settings: dict[str, object]) -> str:
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def new_cluster_id() -> str:
    """A random UUID as Kafka writes it: 22 characters of URL-safe base64, no dash in front."""
    # Kafka draws again for the same reason: its tools take a dash for an option.
    while (text := urlsafe_b64encode(secrets.token_bytes(16)).decode()).startswith("-"):
        continue
    return text.rstrip("=")


@dataclass(frozen=True)
class Cluster:
    """What all nodes of one cluster have in common, from before the first one was formatted."""

    id: str
    brokers: int


def kept_cluster(data: Path, brokers: int | None) -> Cluster:
    """The cluster kept in `data`; a new one of `brokers` nodes, or one, the first time.

    Raises Refused where another number of nodes keeps these data: their copies are spread over as
    many nodes as there were.
    """
    kept = _read_cluster(data)
    if kept is None:
        kept = Cluster(new_cluster_id(), brokers or 1)
        write_private(_cluster_file(data), json.dumps(asdict(kept)))
    if brokers not in (None, kept.brokers):
        raise Refused(
            f"The data in {data} belong to a Kafka of {kept.brokers} node(s), not of {brokers}. Start it "
            f"with --brokers {kept.brokers}, or give another folder with --data."
        )
    return kept


def _cluster_file(data: Path) -> Path:
    return data / "kafka" / "cluster.json"


def _read_cluster(data: Path) -> Cluster | None:
    file = _cluster_file(data)
    if file.exists():
        return Cluster(**json.loads(file.read_text()))
    # A folder from before there were several nodes.
    lone = data / "kafka" / "1" / "meta.properties"
    if not lone.exists():
        return None
    told = dict(line.split("=", 1) for line in lone.read_text().splitlines() if "=" in line)
    return Cluster(told["cluster.id"], 1)


def node_name(node_id: int) -> str:
    """The part's name: `kafka`, and `kafka-2`, `kafka-3` beside it."""
    return "kafka" if node_id == 1 else f"kafka-{node_id}"


@dataclass
class KafkaNode:
    """Node `node_id` (from 1); `jars` is a folder the user filled, None to have them fetched."""

    data: Path
    nodes: Sequence[NodePorts]
    cluster_id: str
    jars: Path | None = None
    node_id: int = 1

    @property
    def name(self) -> str:
        return node_name(self.node_id)

    @property
    def address(self) -> str:
        """Where the node listens."""
        return f"{HOST}:{self.nodes[self.node_id - 1].broker}"

    @property
    def advertised_address(self) -> str:
        """Where clients are sent."""
        own = self.nodes[self.node_id - 1]
        return f"{HOST}:{own.advertised or own.broker}"

    @property
    def _folder(self) -> Path:
        return self.data / "kafka" / str(self.node_id)

    @property
    def _config(self) -> Path:
        return self._folder.with_suffix(".properties")

    async def prepare(self, say: Callable[[str], None]) -> None:
        """Have Java, the jars, the settings and a formatted folder."""
        self._java = java()
        self._classpath = (
            jars_of(self.jars) if self.jars else await fetched_jars(default_cache(), say)
        )
        self._folder.parent.mkdir(exist_ok=True, mode=0o700)
        self._config.write_text(rendered(properties(self.node_id, self.nodes)))
        # As a whole: another node may be reading it.
        write_private(self.data / "kafka" / "log4j2.properties", _LOGGING)
        # What a killed node unpacked of its native libraries.
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._scratch.mkdir()
        if not (self._folder / "meta.properties").exists():
            say("formatting")
            await self._format()

    @property
    def _scratch(self) -> Path:
        return self.data / "kafka" / f"{self.node_id}.tmp"

    async def _format(self) -> None:
        new = self._folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        config = new.with_suffix(".format.properties")
        relative = new.relative_to(self.data)
        settings = properties(self.node_id, self.nodes) | {"log.dirs": relative}
        config.write_text(rendered(settings))
        place = ("--config", str(config.relative_to(self.data)))
        cluster = f"--cluster-id={self.cluster_id}"
        await run_to_end(self._run("kafka.tools.StorageTool", "format", cluster, *place))
        config.unlink()
        new.replace(self._folder)

    def command(self) -> Command:
        return self._run("kafka.Kafka", str(self._config.relative_to(self.data)))

    def _run(self, *main: str) -> Command:
        options = (
            "-Xmx512m",
            "-XX:+UseSerialGC",
            # The first compiler alone: half the processor time to start, and no more per message.
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-XX:-UsePerfData",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self._scratch.relative_to(self.data)}",
            "-Dlog4j2.configurationFile=kafka/log4j2.properties",
        )
        return Command(
            argv=[str(self._java), "-cp", f"{self._classpath}/*", *options, *main],
            cwd=self.data,
            log=self.data / "logs" / f"{self.name}.log",
            env=marked(self.data, LC_ALL="C.UTF-8"),
            stop_timeout_s=30.0,
        )

    async def ready(self) -> bool:
        """Whether the node answers with metadata that hold itself, so that topics can be made."""
        if not is_open(self.nodes[self.node_id - 1].broker):
            return False
        from aiokafka.admin import AIOKafkaAdminClient
        from aiokafka.errors import KafkaError

        with _quiet("aiokafka"):
            admin = AIOKafkaAdminClient(bootstrap_servers=self.address, request_timeout_ms=3000)
            try:
                await admin.start()
                cluster = await admin.describe_cluster()
            except (KafkaError, OSError):
                return False
            finally:
                await admin.close()
        return any(broker["node_id"] == self.node_id for broker in cluster["brokers"])


@contextmanager
def _quiet(logger_name: str) -> Generator[None]:
    """A probe that fails is no news."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)

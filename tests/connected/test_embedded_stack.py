"""The embedded stack on its real parts: it comes up, survives kills, and leaves nothing running.

One stack serves the whole module; the tests that end it come last and start it again.
"""

import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from redis.asyncio import Redis

from pipeline.embedded import Plan, Stack, detach, discover, serve, state_dir, stop
from pipeline.errors import Refused
from pipeline.kafka.admin import asked
from pipeline.kafka.connection import KafkaConnection

pytestmark = pytest.mark.connected

TOPIC = "things"
PARTS = ("kafka", "postgres", "valkey")
SUPERVISOR = """
import asyncio, sys
from pathlib import Path
from pipeline.embedded import Plan, Process, run

STAGES = {"sleeper": "import time; time.sleep(3600)", "misconfigured": "raise SystemExit(78)"}

def stages(stack):
    return [Process(name, [sys.executable, "-c", code]) for name, code in STAGES.items()]

def say(progress):
    print(progress.part, progress.phase, progress.detail, flush=True)

asyncio.run(run(Plan(Path(sys.argv[1]), stages=stages), on_progress=say))
"""


class Running:
    """The stack under test, started in the background on a path with everything paths may hold."""

    def __init__(self, data: Path, mark: str) -> None:
        self.data = data
        self.lines: list[str] = []
        self._mark = mark

    def up(self) -> Stack:
        argv = [sys.executable, "-c", SUPERVISOR, str(self.data)]
        return detach(argv, self.data, on_line=self.lines.append, timeout_s=240)

    @property
    def stack(self) -> Stack:
        stack = discover(self.data)
        assert stack
        return stack

    @property
    def log(self) -> str:
        return (self.data / "logs" / "up.log").read_text()

    def processes(self) -> list[psutil.Process]:
        """Every process of the stack; a server's workers hide their environment, not their folder."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            if process.pid == os.getpid():
                return False
            marked = process.environ().get("EMBEDDED_TEST") == self._mark
            return marked or process.cwd().startswith(str(self.data))
        except psutil.Error:
            return False


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as environment:
        mark = uuid4().hex
        environment.setenv("HYBRID_MEMORY_HOME", str(home))
        environment.setenv("EMBEDDED_TEST", mark)
        running = Running(home / "data, mémoire = 1", mark)
        running.up()
        yield running
        stop(running.data)
        assert running.processes() == []


async def test_data_can_be_written_to_every_part(running: Running) -> None:
    await make_topic(running.stack)
    await write_everywhere(running.stack, "first")

    assert await read_everywhere(running.stack) == {part: ["first"] for part in PARTS}


async def test_the_progress_tells_when_each_part_is_ready(running: Running) -> None:
    for part in PARTS:
        assert any(line.startswith(f"{part} ready in ") for line in running.lines)


async def test_another_command_finds_the_stack_by_itself(running: Running) -> None:
    assert discover() == running.stack
    assert set(running.stack.parts) >= {*PARTS, "sleeper"}


async def test_passwords_are_for_this_user_only(running: Running) -> None:
    private = [*running.data.glob("*.password"), running.data / "stack.json"]
    private += [running.data / "valkey.conf", state_dir() / "running.json"]

    assert len(private) == 5
    assert {stat.S_IMODE(file.stat().st_mode) for file in private} == {0o600}
    assert stat.S_IMODE(running.data.stat().st_mode) == 0o700


async def test_without_the_password_nobody_gets_in(running: Running) -> None:
    host, port = running.stack.parts["postgres"].address.split(":")
    for user in ("hybrid_memory", "postgres"):
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(host=host, port=int(port), user=user, password="guess")


async def test_our_role_can_neither_read_files_nor_make_roles(running: Running) -> None:
    connection = await asyncpg.connect(running.stack.postgres_dsn)
    for statement in ("SELECT pg_read_file('/etc/passwd')", "CREATE ROLE intruder"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_a_second_supervisor_is_refused_and_told_who_holds_the_data(running: Running) -> None:
    who = rf"in use by process {running.stack.pid}\b"
    with pytest.raises(Refused, match=who):
        running.up()
    with pytest.raises(Refused, match=who):
        await serve(Plan(running.data), on_progress=print, until=asyncio.Event())

    assert set(await read_everywhere(running.stack)) == set(PARTS)


async def test_a_stage_that_is_killed_comes_back(running: Running) -> None:
    before = kill_part(running.stack, "sleeper")

    await eventually(lambda: running.stack.parts["sleeper"].pid not in (None, before))
    assert "sleeper died killed by SIGKILL; starts again in 1 s" in running.log


async def test_a_stage_that_cannot_run_as_configured_is_left_alone(running: Running) -> None:
    assert running.stack.parts["misconfigured"].pid is None
    assert sum("misconfigured starting" in line for line in running.lines) == 1


@pytest.mark.parametrize("part", PARTS)
async def test_a_killed_part_comes_back_on_its_port_with_its_data(
    running: Running, part: str
) -> None:
    before = running.stack.parts[part]
    await write_everywhere(running.stack, f"before {part} died")
    await asyncio.sleep(1.1)  # the cache writes to the disk every second

    kill_part(running.stack, part)

    await eventually(lambda: running.log.count(f"{part} ready in ") == 2)
    assert running.stack.parts[part].address == before.address
    assert running.stack.parts[part].pid not in (None, before.pid)
    found = await read_everywhere(running.stack)
    assert all(f"before {part} died" in values for values in found.values())


async def test_a_killed_guard_is_replaced(running: Running) -> None:
    [guard] = guards(running)
    guard.kill()

    await eventually(lambda: [found.pid for found in guards(running)] not in ([], [guard.pid]))


async def test_after_a_kill_of_everything_at_once_the_data_are_there(running: Running) -> None:
    await write_everywhere(running.stack, "before all died")
    await asyncio.sleep(1.1)
    addresses = {part: running.stack.parts[part].address for part in PARTS}
    doomed = running.processes()
    for process in doomed:
        with suppress(psutil.NoSuchProcess):  # a worker of one that was killed before
            process.kill()
    psutil.wait_procs(doomed, timeout=10)
    assert discover(running.data) is None

    stack = running.up()

    assert {part: stack.parts[part].address for part in PARTS} == addresses
    found = await read_everywhere(stack)
    assert all("before all died" in values for values in found.values())


async def test_a_pid_that_somebody_else_got_does_not_keep_postgres_down(running: Running) -> None:
    stop(running.data)
    stale = [str(os.getpid()), str(running.data / "postgres"), "1700000000", "1", "", "127.0.0.1"]
    (running.data / "postgres" / "postmaster.pid").write_text("\n".join(stale) + "\n")

    stack = running.up()

    assert (await read_everywhere(stack))["postgres"]


async def test_a_killed_supervisor_leaves_nothing_running(running: Running) -> None:
    psutil.Process(running.stack.pid).kill()

    await eventually(lambda: running.processes() == [], timeout_s=10)
    assert discover(running.data) is None
    assert stop(running.data), "there is a stale state to clean up"
    assert not stop(running.data)
    assert not (state_dir() / "running.json").exists()


async def test_starting_at_once_after_a_kill_waits_for_the_remains(running: Running) -> None:
    supervisor = psutil.Process(running.up().pid)
    supervisor.kill()
    supervisor.wait(5)

    assert await read_everywhere(running.up())


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's part of the leash")
async def test_a_supervisor_killed_together_with_its_guard_leaves_nothing_running(
    running: Running,
) -> None:
    for doomed in (*guards(running), psutil.Process(running.stack.pid)):
        doomed.kill()

    await eventually(lambda: running.processes() == [], timeout_s=10)
    running.up()


async def test_ctrl_c_stops_stages_first_and_kafka_last(running: Running) -> None:
    supervisor = psutil.Process(running.stack.pid)
    supervisor.send_signal(signal.SIGINT)
    supervisor.wait(30)

    stopped = [line.split()[0] for line in running.log.splitlines() if "stopped" in line]
    assert stopped[-3:] == ["valkey", "postgres", "kafka"]
    assert set(stopped[:-3]) == {"sleeper", "misconfigured"}
    assert running.processes() == []
    assert discover() is None


async def test_a_second_ctrl_c_ends_everything_at_once(running: Running) -> None:
    supervisor = psutil.Process(running.up().pid)
    kafka = running.stack.parts["kafka"].pid
    assert kafka
    os.kill(kafka, signal.SIGSTOP)  # it will not end by itself

    supervisor.send_signal(signal.SIGINT)
    await asyncio.sleep(1)
    assert supervisor.is_running()
    supervisor.send_signal(signal.SIGINT)
    supervisor.wait(5)

    assert running.processes() == []


async def make_topic(stack: Stack) -> None:
    async with asked(KafkaConnection(stack.kafka_bootstrap_servers)) as admin:
        await admin.create_topics([NewTopic(TOPIC, 1, 1)])


async def write_everywhere(stack: Stack, value: str) -> None:
    connection = await asyncpg.connect(stack.postgres_dsn)
    await connection.execute(f"CREATE TABLE IF NOT EXISTS {TOPIC} (value text)")
    await connection.execute(f"INSERT INTO {TOPIC} VALUES ($1)", value)
    await connection.close()
    async with Redis.from_url(stack.redis_url) as valkey:
        await valkey.rpush(TOPIC, value)
    async with AIOKafkaProducer(
        bootstrap_servers=stack.kafka_bootstrap_servers, acks="all", enable_idempotence=True
    ) as producer:
        await producer.send_and_wait(TOPIC, value.encode())


async def read_everywhere(stack: Stack) -> dict[str, list[str]]:
    connection = await asyncpg.connect(stack.postgres_dsn)
    rows = await connection.fetch(f"SELECT value FROM {TOPIC}")
    await connection.close()
    async with Redis.from_url(stack.redis_url, decode_responses=True) as valkey:
        cached = await valkey.lrange(TOPIC, 0, -1)
    return {
        "postgres": [row["value"] for row in rows],
        "valkey": [str(value) for value in cached],
        "kafka": await read_topic(stack),
    }


async def read_topic(stack: Stack) -> list[str]:
    partition = TopicPartition(TOPIC, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=stack.kafka_bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        values: list[str] = []
        while len(values) < end:
            value = (await consumer.getone()).value
            assert value is not None
            values.append(value.decode())
    return values


async def eventually(holds: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.1)


def kill_part(stack: Stack, name: str) -> int:
    pid = stack.parts[name].pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    return pid


def guards(running: Running) -> list[psutil.Process]:
    return [found for found in running.processes() if "guard.py" in " ".join(found.cmdline())]

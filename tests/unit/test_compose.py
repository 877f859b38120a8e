"""docker-compose.yml runs the stages that there are, with settings that there are."""

import inspect
import re
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.app import SOURCES, stage_modules
from pipeline.contract.flows import flows
from pipeline.embedded.java import KAFKA
from pipeline.kafka.process import GRACE_S
from pipeline.settings import Settings

Json = dict[str, Any]

EVERYBODY = {
    "KAFKA_BOOTSTRAP_SERVERS",
    "KAFKA_PARTITIONS",
    "KAFKA_REPLICATION_FACTOR",
    "TOPIC_PREFIX",
    "HALTING_SHARE",
    "LOG_LEVEL",
    "LOG_FORMAT",
}
MODEL = {"EMBEDDING_MODEL", "EMBEDDING_BACKEND", "EMBEDDING_THREADS"}
OF_PORT: Mapping[str, Set[str]] = {
    "classifier": set(),
    "embedder": MODEL,
    "records": {"POSTGRES_DSN"},
    # An index is opened for the vectors of a model.
    "vectors": MODEL
    | {"QDRANT_URL", "QDRANT_GRPC_PORT", "QDRANT_API_KEY"}
    | {"QDRANT_COLLECTION", "QDRANT_REPLICATION_FACTOR"},
    "cache": {"REDIS_URL"},
    "caches": {"REDIS_URL", "CACHE_MEMORY_BYTES", "CACHE_QUESTION_VECTORS", "CACHE_ANSWERS"},
    "weights": {"SEARCH_WEIGHTS"},
    "rereading": {"RERANKER_MODEL", "RERANK_DEPTH", "RERANK_WEIGHT", "EMBEDDING_THREADS"},
    "tiers": {"TIERS"},
}
"""What the opener of each port reads."""
OF_SOURCE: Mapping[str, Set[str]] = {
    "mem0": {"MEM0_API_KEY", "MEM0_HOST", "MEM0_PROJECT_ID", "MEM0_ALLOW_DELETES"}
    | {"MEM0_REPLICA_LAG_SECONDS", "SYNC_INTERVAL_SECONDS", "SYNC_SWEEP_INTERVAL_SECONDS"}
}
NOT_PASSED: Mapping[str, str] = {
    "KAFKA_SECURITY_PROTOCOL": "this Kafka has no sign-in",
    "KAFKA_SASL_MECHANISM": "this Kafka has no sign-in",
    "KAFKA_USERNAME": "this Kafka has no sign-in",
    "KAFKA_PASSWORD": "this Kafka has no sign-in",
    "KAFKA_CA_FILE": "this Kafka has no sign-in",
    "CACHE_HOT_USERS_BYTES": "Qdrant Edge only",
    "MEM0_LOCAL": "a folder of the machine, which no container sees",
    "MEM0_LOCAL_COLLECTION": "a folder of the machine, which no container sees",
}


@pytest.fixture(scope="module")
def services(project: Path) -> Mapping[str, Json]:
    return yaml.safe_load((project / "docker-compose.yml").read_text("utf-8"))["services"]


@pytest.fixture(scope="module")
def stages(services: Mapping[str, Json]) -> Mapping[str, Json]:
    return {name: service for name, service in services.items() if "build" in service}


def variables(text: str) -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{(\w+)", text))


def run_by(service: Json) -> list[str]:
    """The stages that a service runs."""
    program, run, *words = service["command"]
    assert (program, run) == ("hybrid-memory", "run")
    return [word for word in words if not word.startswith("--")]


def test_every_stage_is_run_by_one_service(stages: Mapping[str, Json]):
    running = [stage for service in stages.values() for stage in run_by(service)]
    assert sorted(running) == sorted([*stage_modules(), *SOURCES])


def test_a_service_is_called_as_the_stage_it_runs(stages: Mapping[str, Json]):
    assert {name: run_by(service)[0] for name, service in stages.items()} == {
        name: name for name in stages
    }


def test_whoever_may_switch_the_index_is_answered_beside_the_searches(stages: Mapping[str, Json]):
    assert run_by(stages["query"]) == ["query", "operator_desk"]


def test_a_service_says_whether_it_is_well(stages: Mapping[str, Json]):
    for service in stages.values():
        (port,) = re.findall(r"--health-port=(\d+)", " ".join(service["command"]))
        assert f"http://127.0.0.1:{port}/ready" in service["healthcheck"]["test"][-1]


def test_the_environment_is_settings(stages: Mapping[str, Json]):
    known = {name.upper() for name in Settings.model_fields}
    for service in stages.values():
        assert set(service["environment"]) <= known


def needs(stage: str) -> Set[str]:
    if stage in SOURCES:
        return OF_SOURCE[stage]
    ports = inspect.signature(stage_modules()[stage].stage).parameters
    return {name for port in ports for name in OF_PORT[port]}


def test_a_service_is_told_what_its_stages_need_and_nothing_else(stages: Mapping[str, Json]):
    for name, service in stages.items():
        needed = {setting for stage in run_by(service) for setting in needs(stage)}
        assert set(service["environment"]) == EVERYBODY | needed, name


def test_every_setting_reaches_the_services_that_read_it(stages: Mapping[str, Json]):
    passed = {name for service in stages.values() for name in service["environment"]}
    assert passed | NOT_PASSED.keys() == {name.upper() for name in Settings.model_fields}
    assert not passed & NOT_PASSED.keys()


def test_what_is_set_is_passed_under_its_own_name(stages: Mapping[str, Json]):
    # A name without a value is passed as it is, where it is set.
    made_here = {"KAFKA_BOOTSTRAP_SERVERS", "POSTGRES_DSN", "REDIS_URL", "LOG_FORMAT"}
    made_here |= {"QDRANT_URL", "QDRANT_GRPC_PORT"}
    for service in stages.values():
        for name, value in service["environment"].items():
            assert value is None or name in made_here or variables(value) == {name}


def test_a_stage_waits_for_the_servers_it_uses(
    stages: Mapping[str, Json], services: Mapping[str, Json]
):
    for name, service in stages.items():
        assert "kafka" in service["depends_on"]
        for neighbour, how in service["depends_on"].items():
            assert how == {"condition": "service_healthy"}, name
            assert "healthcheck" in services[neighbour]


def test_writers_wait_for_their_stores(stages: Mapping[str, Json]):
    service_of = {stage: service for service in stages.values() for stage in run_by(service)}
    for flow in flows():
        stores = {store.lower() for store in flow.stores}
        assert stores <= service_of[flow.stage]["depends_on"].keys()


def test_everything_comes_up_again(services: Mapping[str, Json]):
    assert {service["restart"] for service in services.values()} == {"unless-stopped"}


def test_a_stage_may_finish_its_batch(stages: Mapping[str, Json]):
    for service in stages.values():
        assert int(service["stop_grace_period"].removesuffix("s")) > GRACE_S


def test_only_this_machine_reaches_what_is_published(project: Path):
    for name in ("docker-compose.yml", "deploy/compose.stores.yml"):
        for service in yaml.safe_load((project / name).read_text("utf-8"))["services"].values():
            assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_stores_are_published_only_by_choice(services: Mapping[str, Json], project: Path):
    chosen = yaml.safe_load((project / "deploy/compose.stores.yml").read_text("utf-8"))["services"]
    assert not [name for name in chosen if "ports" in services[name]]


def test_secrets_are_asked_for_and_have_no_default(project: Path):
    text = (project / "docker-compose.yml").read_text("utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    assert asked == {"POSTGRES_PASSWORD", "QDRANT_API_KEY", "VALKEY_PASSWORD"}
    for secret in asked:
        assert not re.findall(rf"\$\{{{secret}(?!:\?)", text)


def test_the_example_names_what_the_file_reads_and_holds_no_secret(project: Path):
    example = (project / ".env.example").read_text("utf-8")
    told = dict(re.findall(r"^(\w+)=(.*)$", example, re.MULTILINE))
    assert told.keys() <= variables((project / "docker-compose.yml").read_text("utf-8"))
    secret = [name for name in told if name.endswith(("PASSWORD", "KEY"))]
    assert {told[name] for name in secret} == {""}
    assert set(secret) == {"POSTGRES_PASSWORD", "QDRANT_API_KEY", "VALKEY_PASSWORD", "MEM0_API_KEY"}


def test_the_poller_starts_only_where_it_is_asked_for(stages: Mapping[str, Json]):
    assert {name for name, service in stages.items() if "profiles" in service} == {"mem0"}
    # Without a key, the other services start all the same.
    assert stages["mem0"]["environment"]["MEM0_API_KEY"] == "${MEM0_API_KEY:-}"


def test_it_is_the_kafka_that_we_test_on(services: Mapping[str, Json]):
    assert services["kafka"]["image"] == f"apache/kafka:{KAFKA.rpartition(':')[2]}"


def test_images_have_versions(services: Mapping[str, Json], stages: Mapping[str, Json]):
    for name in services.keys() - stages.keys():
        assert re.search(r":v?\d", services[name]["image"]), name


def test_the_image_gets_every_file_it_copies(project: Path):
    let_in = (project / ".dockerignore").read_text("utf-8").split("\n")
    lines = re.findall(
        r"^COPY (?!--from)(.*)$", (project / "deploy/Dockerfile").read_text(), re.MULTILINE
    )
    for copied in (name for line in lines for name in line.split()[:-1]):
        assert f"!{copied}" in let_in
        assert (project / copied).exists()

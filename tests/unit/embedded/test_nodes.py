import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.embedded.kafka_node import NodePorts, kept_cluster, new_cluster_id, properties
from pipeline.embedded.plan import Plan, parts_of, stack_of
from pipeline.embedded.postgres_node import forget_reused_pid
from pipeline.errors import Refused

ONE = [NodePorts(9092, 9093)]
THREE = [NodePorts(9092, 9093), NodePorts(9094, 9095), NodePorts(9096, 9097)]


def test_kafka_listens_on_this_machine_only() -> None:
    settings = properties(1, ONE)

    assert settings["listeners"] == "CLIENTS://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    assert settings["advertised.listeners"] == "CLIENTS://127.0.0.1:9092"


def test_one_node_keeps_one_copy_of_everything() -> None:
    settings = properties(1, ONE)
    copies = {name: told for name, told in settings.items() if "replication.factor" in name}
    in_sync = {name: told for name, told in settings.items() if "isr" in name or "insync" in name}

    assert set(copies.values()) == {1}
    assert len(copies) == 4
    assert set(in_sync.values()) == {1}


def test_three_nodes_keep_three_copies_and_need_two() -> None:
    settings = properties(2, THREE)

    assert settings["node.id"] == 2
    assert settings["controller.quorum.voters"] == (
        "1@127.0.0.1:9093,2@127.0.0.1:9095,3@127.0.0.1:9097"
    )
    assert settings["log.dirs"] == "kafka/2"
    assert settings["offsets.topic.replication.factor"] == 3
    assert settings["min.insync.replicas"] == 2


def test_clients_are_sent_to_a_proxy_and_nodes_listen_where_they_did() -> None:
    settings = properties(1, [NodePorts(9092, 9093, advertised=19_092)])

    assert settings["advertised.listeners"] == "CLIENTS://127.0.0.1:19092"
    assert settings["listeners"] == "CLIENTS://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"


def test_the_nodes_of_a_cluster_agree_on_its_id_and_each_has_its_place(tmp_path: Path) -> None:
    plan = Plan(tmp_path, postgres_dsn="there", redis_url="there", brokers=3)
    parts = parts_of(plan)

    assert list(parts.by_name()) == ["kafka", "kafka-2", "kafka-3"]
    assert len({node.cluster_id for node in parts.kafka}) == 1
    assert len({node.address for node in parts.kafka}) == 3
    addresses = stack_of(plan, parts).kafka_bootstrap_servers.split(",")
    assert addresses == [node.address for node in parts.kafka]


def test_clients_begin_at_the_proxies_where_there_are_some(tmp_path: Path) -> None:
    plan = Plan(tmp_path, postgres_dsn="there", redis_url="there", kafka_advertised=[19_092])

    assert stack_of(plan, parts_of(plan)).kafka_bootstrap_servers == "127.0.0.1:19092"


def test_data_keep_their_number_of_brokers(tmp_path: Path) -> None:
    made = kept_cluster(tmp_path, 3)

    assert kept_cluster(tmp_path, None) == made
    with pytest.raises(Refused, match="belong to a Kafka of 3 node"):
        kept_cluster(tmp_path, 1)


def test_data_from_before_there_were_clusters_have_one_broker(tmp_path: Path) -> None:
    folder = tmp_path / "kafka" / "1"
    folder.mkdir(parents=True)
    (folder / "meta.properties").write_text("#\nversion=1\ncluster.id=Zm9v\nnode.id=1\n")

    assert (kept_cluster(tmp_path, None).id, kept_cluster(tmp_path, 1).brokers) == ("Zm9v", 1)
    with pytest.raises(Refused):
        kept_cluster(tmp_path, 3)


def test_a_cluster_id_is_never_taken_for_an_option() -> None:
    ids = [new_cluster_id() for _ in range(2000)]

    assert {len(one) for one in ids} == {22}
    assert not any(one.startswith("-") for one in ids)


def test_a_pid_file_whose_pid_somebody_else_got_is_removed(tmp_path: Path) -> None:
    file = pid_file(tmp_path, os.getpid())
    forget_reused_pid(file)

    assert not file.exists()


def test_a_pid_file_whose_process_is_gone_is_left_to_postgres(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    file = pid_file(tmp_path, ended.pid)
    forget_reused_pid(file)

    assert file.exists()


def pid_file(folder: Path, pid: int) -> Path:
    file = folder / "postmaster.pid"
    file.write_text(f"{pid}\n{folder}\n")
    return file

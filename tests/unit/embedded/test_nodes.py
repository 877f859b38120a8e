import os
import subprocess
import sys
from pathlib import Path

from pipeline.embedded.kafka_node import NodePorts, new_cluster_id, properties
from pipeline.embedded.postgres_node import forget_reused_pid

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

"""A settings file that is not understood is refused by name, not passed over."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from pipeline.cli import reaching
from pipeline.cli.reaching import read_settings
from pipeline.errors import Refused
from pipeline.settings import Settings, nearly_ours


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    return tmp_path / "hybrid-memory.yaml"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("kafka_bootstrap_server: a:1", "Do you mean kafka_bootstrap_servers"),
        ("LOG-LEVEL: info", "Do you mean log_level"),
        ("colour: red", "There are kafka_bootstrap_servers, "),
        ("log_level: [", r"hybrid-memory\.yaml cannot be read: .* line 1"),
        ("- log_level", "must hold a setting a line"),
    ],
)
def test_a_file_that_is_wrong_is_refused(file: Path, written: str, why: str) -> None:
    file.write_text(written)
    with pytest.raises(Refused, match=why):
        Settings()


def test_a_file_that_is_right_counts(file: Path) -> None:
    file.write_text("log_level: debug\nkafka_partitions: 3\n")
    assert (Settings().log_level, Settings().kafka_partitions) == ("debug", 3)


def test_an_empty_file_sets_nothing(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert Settings().log_level == "info"


def test_an_address_of_kafka_has_a_port(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka")
    with pytest.raises(ValidationError, match="host:port"):
        Settings()


def test_an_address_that_is_empty_is_not_given(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "")
    assert not Settings().kafka_bootstrap_servers


@pytest.mark.parametrize(
    ("setting", "given", "why"),
    [
        (
            "SEARCH_WEIGHTS",
            '{"denze": 1}',
            r"search_weights: 'denze' is not known .* dense, lexical",
        ),
        (
            "SEARCH_WEIGHTS",
            '{"dense": x}',
            r"search_weights: is no JSON from character 11 on\. Write",
        ),
        ("TIERS", "{", r"tiers: is no JSON from character 2 on\."),
        (
            "SEARCH_WEIGHTS",
            '{"dense": 0, "lexical": 0, "tokens": 0}',
            "search_weights: with these weights nothing is better .* set one of dense, .* above 0",
        ),
        ("TOPIC_PREFIX", "a b", "topic_prefix: is how .* letters of ASCII, digits, dots"),
        ("TOPIC_PREFIX", "a\n", "topic_prefix: is how "),
        ("SEARCH_WEIGHTS", "[1]", "search_weights: must be an object with names and values"),
        ("TIERS", '{"recalled": 1}', r"tiers: 'recalled' is not known .* recalled_hits"),
    ],
)
def test_a_setting_that_cannot_be_right_is_refused_in_words_of_ours(
    file: Path, monkeypatch: pytest.MonkeyPatch, setting: str, given: str, why: str
) -> None:
    monkeypatch.setenv(setting, given)
    with pytest.raises(Refused, match=why):
        read_settings()


def test_a_setting_that_holds_several_values_takes_some_of_them(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEARCH_WEIGHTS", '{"dense": 0.7, "tokens": 0}')
    file.write_text("tiers:\n  recalled_hits: 1\n")
    assert (Settings().search_weights.dense, Settings().search_weights.lexical) == (0.7, 0.4)
    assert Settings().tiers.recalled_hits == 1


@pytest.mark.parametrize(
    "given", ["foo", "localhost:8888", "ftp://mem0", "http://", "http://a b", "http://a:99999"]
)
def test_an_address_of_mem0_has_a_scheme_and_a_host(
    file: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("MEM0_HOST", given)
    with pytest.raises(Refused, match=r"mem0_host: .* http://localhost:8888"):
        read_settings()


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("", "https://api.mem0.ai"),
        ("http://[::1]:8888", "http://[::1]:8888"),
        ("https://mem0/api", "https://mem0/api"),
    ],
)
def test_an_address_of_mem0_that_can_be_asked_counts(
    file: Path, monkeypatch: pytest.MonkeyPatch, given: str, address: str
) -> None:
    monkeypatch.setenv("MEM0_HOST", given)
    assert Settings().mem0_host == address


@pytest.mark.parametrize("given", ["s\u00e9cret", "secret ", "sec\tret", "secret\n"])
def test_a_key_that_no_request_can_carry_is_refused_and_not_repeated(
    file: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("MEM0_API_KEY", given)
    with pytest.raises(Refused, match=r"mem0_api_key: .* copy it again") as refused:
        read_settings()
    assert given.strip() not in str(refused.value)


def test_a_name_in_dotenv_that_is_nearly_ours_is_told_once(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.with_name(".env").write_text("SYNC_INTERVALL_SECONDS=5\nSOME_OTHER_PROGRAM=1\n")
    reaching._tell_mistyped.cache_clear()  # pyright: ignore[reportPrivateUsage]
    assert read_settings().sync_interval_seconds == 60
    read_settings()
    (told,) = capsys.readouterr().err.splitlines()
    assert told.endswith(
        ".env: SYNC_INTERVALL_SECONDS is no setting of ours. Do you mean SYNC_INTERVAL_SECONDS?"
    )


@pytest.mark.parametrize(
    ("names", "near"),
    [
        (["postgres_dns", "REDIS-URL"], {"REDIS-URL": "REDIS_URL", "POSTGRES_DNS": "POSTGRES_DSN"}),
        # Who has set ours has another program's name beside it.
        (["REDIS_URI", "REDIS_URL"], {}),
        (["PATH", "DATABASE_URL", "LEVEL", "OPENAI_API_KEY", "KAFKA_HEAP_OPTS"], {}),
    ],
)
def test_only_what_is_nearly_ours_is_told(names: list[str], near: dict[str, str]) -> None:
    assert nearly_ours(names) == near


def test_the_example_names_nothing_that_looks_mistyped(project: Path) -> None:
    assert not nearly_ours(
        re.findall(r"^#? ?([A-Z0-9_]+)=", (project / ".env.example").read_text(), re.MULTILINE)
    )

"""One frozen Settings: from the environment, a .env file, and hybrid-memory.yaml, in this order.

Only `pipeline/app`, the command line and `pipeline/chaos` read it; everything else asks for what it needs.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    YamlConfigSettingsSource,
)

from pipeline.domain.tiers import Tiers
from pipeline.domain.weights import ALWAYS_TELLING, Weights
from pipeline.errors import Refused
from pipeline.kafka.addresses import bootstrap_servers
from pipeline.kafka.connection import KafkaConnection, SaslMechanism, SecurityProtocol

_GROUPS = {"search_weights": Weights, "tiers": Tiers}
"""Settings that hold several values, by name."""


NEARLY = 0.85
"""How alike names must be where others have theirs, too: a slip of a letter or two."""


class Settings(BaseSettings):
    """Every setting has the name of its environment variable, in lower case.

    An address that is not given is that of the stack that runs on this machine.
    """

    model_config = SettingsConfigDict(
        frozen=True, env_file=".env", yaml_file="hybrid-memory.yaml", extra="ignore"
    )

    kafka_bootstrap_servers: str | None = None
    """host:port of a Kafka cluster, several separated by commas."""
    kafka_security_protocol: SecurityProtocol = "PLAINTEXT"
    kafka_sasl_mechanism: SaslMechanism = "SCRAM-SHA-512"
    kafka_username: str | None = None
    kafka_password: SecretStr | None = None
    kafka_ca_file: Path | None = None
    kafka_partitions: int = Field(default=6, ge=1)
    """Of topics that we make."""
    kafka_replication_factor: int = Field(default=1, ge=1)
    """Of topics that we make: 3 on a cluster."""
    topic_prefix: str = "memory"

    postgres_dsn: SecretStr | None = None
    """postgresql://user:password@host:port/database"""
    qdrant_url: str | None = None
    """http://host:6333 of a Qdrant server; unless given, Qdrant Edge keeps the index here."""
    qdrant_api_key: SecretStr | None = None
    qdrant_grpc_port: int | None = None
    """6334, usually: vectors then travel as bytes instead of JSON."""
    qdrant_collection: str = "memories"
    qdrant_replication_factor: int = Field(default=1, ge=1)
    """Of a collection that we make: 2 or more on a cluster."""
    redis_url: SecretStr | None = None
    """redis://host:6379 of a Redis or Valkey."""

    embedding_model: str = "all-MiniLM-L6-v2"
    """A name on the hub, or a folder."""
    embedding_backend: Literal[
        "auto", "torch-fp32", "torch-bf16", "openvino-fp32", "openvino-bf16", "openvino-int8"
    ] = "auto"
    """`auto` measures at the first start which is fastest on this machine."""
    embedding_threads: int | None = Field(default=None, ge=1)
    """Of the model; all cores unless given."""

    reranker_model: str | None = None
    """A cross-encoder's name on the hub, or a folder: it reads the best hits again. Unless given, nothing does."""
    rerank_depth: int = Field(default=30, ge=1, le=100)
    """How many of the best hits are read again; each costs one pass of the model."""
    rerank_weight: float = Field(default=0.5, ge=0, le=1)
    """How much the reranker counts beside the ranking: at 1 it alone decides."""
    search_weights: Weights = Weights()
    """How much each signal counts in a search; 0 switches it off."""

    tiers: Tiers = Tiers()
    """How fast memories fade that are not recalled, by tier, and how many hits of an answer count as recalled."""
    cache_memory_bytes: int = Field(default=64 * 1024 * 1024, ge=0)
    """What a query desk keeps in its own memory of questions' vectors and answers; 0: nothing."""
    cache_hot_users_bytes: int = Field(default=128 * 1024 * 1024, ge=0)
    """What it keeps beside that of the vectors of users with many memories who ask often; 0: nothing. Qdrant Edge only."""
    cache_question_vectors: bool = True
    """Whether the vectors of questions are kept, there and in Redis, for a day."""
    cache_answers: bool = True
    """Whether answers are kept until something of their user's memories changes."""

    mem0_api_key: SecretStr | None = None
    """Of the project to watch; `hybrid-memory up` then starts the poller, too."""
    mem0_host: str = "https://api.mem0.ai"
    mem0_project_id: str | None = None
    """If given, the key must belong to it."""
    mem0_local: Path | None = None
    """Instead of a key: the folder of a Mem0 without the cloud (`path` of its vector_store)."""
    mem0_local_collection: str | None = None
    """Its collection, where there are several and none is called `mem0`."""
    mem0_allow_deletes: str | None = None
    """What the poller says when much has disappeared from Mem0, if that was meant: for that one time."""
    mem0_replica_lag_seconds: float = Field(default=60, ge=0)
    """How far behind a replica of Mem0 may be."""
    sync_interval_seconds: float = Field(default=60, gt=0)
    """Between two looks at Mem0."""
    sync_sweep_interval_seconds: float = Field(default=3_600, gt=0)
    """Between two looks at everything that is there."""

    halting_share: float = Field(default=0.5, gt=0, le=1)
    """A stage stops where more of its latest messages fail than this share; 1 sets them aside instead."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["text", "json"] = "text"

    @field_validator(
        "postgres_dsn",
        "qdrant_url",
        "redis_url",
        "mem0_api_key",
        "mem0_project_id",
        "mem0_local",
        mode="before",
    )
    @classmethod
    def _not_empty(cls, given: object) -> object:
        # A compose file passes on what is not set so.
        return given or None

    @property
    def watches_mem0(self) -> bool:
        """Whether there is a Mem0 to watch."""
        return self.mem0_api_key is not None or self.mem0_local is not None

    @field_validator("search_weights", "tiers", mode="before")
    @classmethod
    def _of_known_names(cls, given: object, info: ValidationInfo) -> object:
        # A dataclass passes over what it does not know.
        known = [field.name for field in fields(_GROUPS[info.field_name or ""])]
        if isinstance(given, Mapping):
            for name in map(str, given.keys() - set(known)):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                raise ValueError(f"{name[:40]!r} is not known here: there are {', '.join(known)}")
        return given  # pyright: ignore[reportUnknownVariableType]

    @field_validator("topic_prefix")
    @classmethod
    def _prefix(cls, given: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,100}", given):
            raise ValueError(
                "is how the names of topics begin: 1 to 100 letters of ASCII, digits, dots, hyphens and underscores"
            )
        return given

    @field_validator("search_weights")
    @classmethod
    def _ranks(cls, given: Weights) -> Weights:
        # Not in Weights: a question may leave out what only a classifier says.
        if not given.ranks:
            raise ValueError(
                "with these weights nothing is better than anything else: set one of "
                f"{', '.join(ALWAYS_TELLING)} above 0, or leave them out"
            )
        return given

    @field_validator("mem0_api_key")
    @classmethod
    def _key(cls, given: SecretStr | None) -> SecretStr | None:
        # What no request can carry would fail for ever. The key itself is not repeated.
        if given and not re.fullmatch("[!-~]+", given.get_secret_value()):
            raise ValueError(
                "holds a space, a line break or a letter beyond ASCII, which no key does: copy it again"
            )
        return given

    @field_validator("mem0_host")
    @classmethod
    def _url(cls, given: str) -> str:
        if not given:
            return cls.model_fields["mem0_host"].default
        if not is_http(given):
            # Not repeated: it may hold a password.
            raise ValueError(
                "is no address of a Mem0: write http://host:port or https://host, as in http://localhost:8888"
            )
        return given

    @field_validator("mem0_allow_deletes")
    @classmethod
    def _permission(cls, given: str | None) -> str | None:
        if given and not re.fullmatch(r"\d+@[0-9a-f]{8}", given):
            raise ValueError("is what the poller says when it asks, as in 30@7f3a9c1e")
        return given or None

    @field_validator("kafka_bootstrap_servers")
    @classmethod
    def _addresses(cls, given: str | None) -> str | None:
        # Empty is not given: a compose file passes on what is not set so.
        return bootstrap_servers(given) if given else given

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (
            init_settings,
            env_settings,
            dotenv_settings,
            _OurYaml(settings_cls),
            file_secret_settings,
        )

    def kafka(self, bootstrap_servers: str) -> KafkaConnection:
        """How to reach Kafka at `bootstrap_servers`."""
        return KafkaConnection(
            bootstrap_servers=bootstrap_servers,
            security_protocol=self.kafka_security_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            username=self.kafka_username,
            password=self.kafka_password.get_secret_value() if self.kafka_password else None,
            ca_file=str(self.kafka_ca_file) if self.kafka_ca_file else None,
        )


def is_http(address: str) -> bool:
    """Whether it is an address that HTTP can go to."""
    try:
        split = urlsplit(address)
        port = split.port
    except ValueError:
        return False
    blank = re.search(r"\s", address)
    return split.scheme in {"http", "https"} and bool(split.hostname) and port != 0 and not blank


class _OurYaml(YamlConfigSettingsSource):
    """The file is ours alone, unlike the environment: a key that nobody knows was meant for us."""

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        # Only where there is such a file: every command reads the settings.
        import yaml

        try:
            read: Any = super()._read_file(file_path)
        # A number or a date that is none, `0x_`, is a bare ValueError.
        except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
            raise Refused(f"{file_path} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(read, dict):
            raise Refused(f"{file_path} must hold a setting a line, as in `log_level: debug`.")
        settings: dict[str, Any] = {str(key): value for key, value in read.items()}
        for key in sorted(settings.keys() - Settings.model_fields.keys()):
            raise Refused(f"{file_path}: there is no setting {key[:60]!r}. {_nearest(key)}")
        return settings


def mistyped() -> Mapping[str, str]:
    """Names in the .env file that are nearly those of our settings, and which these are.

    The file is not ours alone: what is no setting may be another program's, and is not refused.
    """
    return nearly_ours(DotEnvSettingsSource(Settings).env_vars)


def nearly_ours(names: Iterable[str]) -> Mapping[str, str]:
    """Those of `names` that are nearly a setting which is not among them, with its name."""
    given = {name.lower() for name in names}
    missing = sorted(Settings.model_fields.keys() - given)
    near: dict[str, str] = {}
    for name in sorted(given - Settings.model_fields.keys()):
        if close := get_close_matches(name.replace("-", "_"), missing, 1, NEARLY):
            near[name.upper()] = close[0].upper()
    return near


def _nearest(key: str) -> str:
    known = list(Settings.model_fields)
    close = get_close_matches(key.lower().replace("-", "_"), known, n=1)
    return f"Do you mean {close[0]}?" if close else f"There are {', '.join(known)}."

"""What Postgres, asyncpg and SQLAlchemy raise -> what to do about it."""

from collections.abc import Generator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

from alembic.util import CommandError
from asyncpg import exceptions as pg
from sqlalchemy.exc import DBAPIError

from pipeline.errors import Refused, Unavailable, Unusable

_IN_TROUBLE = ("08", "0A000", "25006", "25P03", "25P04", "40", "53", "55P03", "57", "58")
"""Connection, plan out of date, read-only, too slow, deadlock, resources, lock, shutdown, system."""
_NOT_LET_IN = ("28", "3D", "42501")
_CANNOT_KEEP = ("22", "54")


@contextmanager
def remedies(address: str) -> Generator[None, None, None]:
    """Names an error by what to do about it. Nothing of a row or of the DSN gets into the message."""
    try:
        yield
    except Exception as error:
        remedy = _remedy(_unwrapped(error), address)
        if remedy is None:
            raise
        raise remedy from error


def _unwrapped(error: BaseException) -> BaseException:
    """What asyncpg said, where SQLAlchemy says it again."""
    while isinstance(error, DBAPIError) and error.orig is not None:
        error = error.orig.__cause__ or error.orig
    return error


def _remedy(error: BaseException, address: str) -> Exception | None:
    match error:
        case pg.ClientConfigurationError():
            return Refused(
                "POSTGRES_DSN is no address: postgresql://user:password@host:5432/database"
            )
        case CommandError():
            return Refused(
                f"Postgres at {address} was set up by a later version of this program: update this one."
            )
        case pg.OutdatedSchemaCacheError():
            return Unavailable(f"Postgres at {address} has just been migrated: again.")
        case pg.PostgresError():
            return _by_sqlstate(error.sqlstate or "", type(error).__name__, address)
        case pg.InternalClientError():
            # What asyncpg says of a connection whose server has just gone.
            return Unavailable(f"Postgres at {address} has broken off: is it restarting?")
        case pg.InterfaceError() if "closed" in str(error):
            return Unavailable(f"Postgres at {address} has closed the connection.")
        case OSError():
            return Unavailable(
                f"Postgres at {address} does not answer ({type(error).__name__}): is it running?"
            )
        case _:
            return None


def _by_sqlstate(state: str, name: str, address: str) -> Exception | None:
    if state.startswith(_IN_TROUBLE):
        return Unavailable(f"Postgres at {address} cannot do it now ({name}).")
    if state.startswith(_NOT_LET_IN):
        return Refused(f"Postgres at {address} lets us not in ({name}): check POSTGRES_DSN.")
    if state.startswith(_CANNOT_KEEP):
        return Unusable(f"Postgres cannot keep this ({name}).")
    return None


def address_of(dsn: str) -> str:
    """host:port of a DSN, without user and password."""
    split = urlsplit(dsn)
    socket = parse_qs(split.query).get("host", [""])[0]
    return split.netloc.rpartition("@")[2] or socket or "localhost"

"""Whose index it is: on a server that many share, or in a directory that one process owns."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.app.neighbours import Addresses
from pipeline.errors import Refused
from pipeline.settings import Settings

if TYPE_CHECKING:
    # They speak in arrays; the command line starts without numpy.
    from pipeline.ports import Embedder, MemoryVectors
    from pipeline.stores.caches import Caches
    from pipeline.stores.hot import Keep
    from pipeline.stores.points import IndexShape
    from pipeline.stores.qdrant import FreshCollection, Server
    from pipeline.verifying.replacing import Fresh


async def fresh_index(
    stack: AsyncExitStack,
    settings: Settings,
    where: Addresses,
    ports: Mapping[str, Any],
    members: int,
) -> "Fresh":
    """A fresh index beside the one in use. Whose that is decides how the fresh one takes its place.

    `members` are the processes that use it now. Raises Refused, Unavailable.
    """
    from pipeline.verifying.replacing import OnAServer

    if where.qdrant_url:
        server, shape = _server(settings, where.qdrant_url), shape_of(ports["embedder"])
        made = await _fresh_on_a_server(stack, server, shape, in_use=members > 0)
        return OnAServer(made.index, made.switch, where.kafka, settings.topic_prefix, members)
    return await _fresh_in_a_directory(stack, settings, where, ports, members)


async def _fresh_on_a_server(
    stack: AsyncExitStack, server: "Server", shape: "IndexShape", *, in_use: bool
) -> "FreshCollection":
    from pipeline.stores.qdrant import check_model, fresh_collection

    if in_use:
        await check_model(server, shape)
    return await stack.enter_async_context(fresh_collection(server, shape))


async def _fresh_in_a_directory(
    stack: AsyncExitStack,
    settings: Settings,
    where: Addresses,
    ports: Mapping[str, Any],
    members: int,
) -> "Fresh":
    from pipeline.kafka.asking import Asking
    from pipeline.stores.edge_folders import check_folder, fresh_folder, take_over
    from pipeline.verifying.repairing import mending
    from pipeline.verifying.replacing import OfAnOwner, OfNobody

    path, shape = _directory(where), shape_of(ports["embedder"])
    kafka, prefix = where.kafka, settings.topic_prefix
    if members:
        await asyncio.to_thread(check_folder, path, shape)
    name, index = await stack.enter_async_context(fresh_folder(path, shape))
    if not members:
        return OfNobody(index, name, path, take_over, kafka, prefix)
    asking = Asking(kafka, prefix)
    stack.push_async_callback(asking.close)
    mend = await stack.enter_async_context(mending(kafka, prefix, ports["records"]))
    return OfAnOwner(index, name, asking, mend, kafka, prefix)


def shape_of(model: "Embedder") -> "IndexShape":
    """What an index for this model's vectors holds."""
    from pipeline.stores.points import IndexShape

    return IndexShape(model.model, model.dimensions)


def _directory(where: Addresses) -> Path:
    if where.qdrant_path is None:
        raise Refused("No Qdrant: start the stack with `hybrid-memory up`, or set QDRANT_URL.")
    return where.qdrant_path


def _server(settings: Settings, url: str) -> "Server":
    from pipeline.stores.qdrant import Server

    key = settings.qdrant_api_key.get_secret_value() if settings.qdrant_api_key else None
    return Server(
        url=url,
        collection=settings.qdrant_collection,
        api_key=key,
        grpc_port=settings.qdrant_grpc_port,
        replication_factor=settings.qdrant_replication_factor,
    )


def index_lock(where: Addresses) -> TextIOWrapper | None:
    """The lock of the index that one process owns; None where a server has it. Raises Refused."""
    if where.qdrant_url or where.qdrant_path is None:
        return None
    from pipeline.stores.edge_files import owned

    return owned(where.qdrant_path)


async def open_index(
    settings: Settings,
    where: Addresses,
    shape: "IndexShape",
    caches: "Caches | None",
    lock: TextIOWrapper | None,
) -> "MemoryVectors":
    """The index of this shape in the place that the settings name. Raises Refused, Unavailable."""
    if where.qdrant_url:
        from pipeline.stores.qdrant import open_qdrant

        return await open_qdrant(_server(settings, where.qdrant_url), shape)
    from pipeline.stores.edge_folders import open_owned

    return await open_owned(_directory(where), shape, keep=_keep(settings, caches), lock=lock)


def _keep(settings: Settings, caches: "Caches | None") -> "Keep | None":
    """Where questions are answered: the vectors of users who ask often."""
    tally = caches.memories if caches else None
    if tally is None:
        return None
    from pipeline.stores.hot import HotVectors

    return lambda points: HotVectors(points, settings.cache_hot_users_bytes, tally)

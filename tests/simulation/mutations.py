"""Bugs that somebody could make: each takes one rule out of the product, and the simulation must notice."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from consumers import contextualizer, record_writer
from pipeline.domain import versions
from pipeline.errors import Unavailable, Unusable
from pipeline.kafka import delivery, reading, records
from pipeline.kafka.delivery import StageDelivery
from pipeline.kafka.outbox import Outbox
from pipeline.stores import (
    conversations_in_memory,
    finding,
    index,
    lives_in_points,
    payloads,
    points,
    points_in_memory,
    records_in_memory,
    states,
)
from pipeline.stores.conditions import Every, HasId, Is, Some
from pipeline.stores.points import FORGOTTEN, MEMORY, Point
from pipeline.stores.points_in_memory import PointsInMemory
from schemas.events import MemoryForgotten
from tests.simulation.stores import RemotePoints, RemoteRecords

Mutation = Callable[[pytest.MonkeyPatch], None]

MUTATIONS: dict[str, Mutation] = {}


def mutation(change: Mutation) -> Mutation:
    MUTATIONS[change.__name__] = change
    return change


@mutation
def the_index_overwrites_what_is_newer(patch: pytest.MonkeyPatch) -> None:
    def anything(some: Sequence[Point]) -> Some:
        return Some(tuple(HasId(point.id) for point in some))

    patch.setattr(points_in_memory, "replaceable", anything)


@mutation
def a_store_writes_without_looking_what_it_holds(patch: pytest.MonkeyPatch) -> None:
    settle = versions.settle

    def unknowing(events: Any, _: Any, marks: Any) -> Any:
        return settle(events, {}, marks)

    patch.setattr(states, "settle", unknowing)


@mutation
def the_index_looks_for_no_watermark(patch: pytest.MonkeyPatch) -> None:
    decide = states.decide

    def unmarked(run: Any, known: Any, forgotten: Any) -> Any:
        return decide(run, known, {})

    patch.setattr(index, "decide", unmarked)


@mutation
def what_comes_after_its_user_was_forgotten_leaves_no_tombstone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(states, "_came_last", _no)


@mutation
def a_tombstone_is_a_deletion(patch: pytest.MonkeyPatch) -> None:
    put = PointsInMemory.put

    async def putting(self: PointsInMemory, some: Sequence[Point]) -> None:
        await put(self, some)
        for point in some:
            if point.payload["kind"] == FORGOTTEN:
                self._points.pop(point.id, None)  # pyright: ignore[reportPrivateUsage]

    patch.setattr(PointsInMemory, "put", putting)


@mutation
def a_repeated_idempotent_capture_counts_as_newer(patch: pytest.MonkeyPatch) -> None:
    placed = versions.placed

    def newer(event_id: UUID, version: int, *, yields: bool) -> versions.Stamp:
        return placed(event_id, version, yields=False)

    _replace(patch, "placed", newer, versions, states)


@mutation
def equal_versions_are_told_apart_by_their_arrival(patch: pytest.MonkeyPatch) -> None:
    placed = versions.placed

    def tied(_: UUID, version: int, *, yields: bool) -> versions.Stamp:
        return placed(UUID(int=0), version, yields=yields)

    _replace(patch, "placed", tied, versions, states)


@mutation
def a_version_may_be_from_any_clock(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reading, "check_not_ahead", _no)


@mutation
def a_memory_id_is_taken_to_be_unique(patch: pytest.MonkeyPatch) -> None:
    key = versions.memory_key

    def of_anybody(_: str, memory_id: str) -> UUID:
        return key("", memory_id)

    twins = (conversations_in_memory, records_in_memory)
    readers = (versions, states, payloads, lives_in_points, index, records, *twins)
    _replace(patch, "memory_key", of_anybody, *readers)


@mutation
def a_search_is_not_narrowed_to_its_user(patch: pytest.MonkeyPatch) -> None:
    def everybodys(*_: Any) -> Every:
        return Every((Is("kind", MEMORY),))

    patch.setattr(finding, "searched", everybodys)


@mutation
def the_index_does_not_wait_for_its_disk(patch: pytest.MonkeyPatch) -> None:
    async def at_once(_: RemotePoints) -> None:
        pass

    patch.setattr(RemotePoints, "settle", at_once)


@mutation
def offsets_are_committed_before_the_work(patch: pytest.MonkeyPatch) -> None:
    deliver = StageDelivery._deliver  # pyright: ignore[reportPrivateUsage]

    async def committed_first(self: Any, taken: Sequence[Any]) -> None:
        await self._commit(taken)
        await deliver(self, taken)

    patch.setattr(StageDelivery, "_deliver", committed_first)


@mutation
def acknowledgements_are_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    async def sent(self: Any, outgoing: Sequence[Any]) -> Sequence[int]:
        for each in outgoing:
            await self._send(each)
        return ()

    patch.setattr(Outbox, "_sent", sent)


@mutation
def a_batch_that_failed_is_not_read_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(StageDelivery, "_rewind", _no)


@mutation
def what_was_too_much_for_a_batch_is_left_out(patch: pytest.MonkeyPatch) -> None:
    cut = delivery.cut

    def shortened(taken: Sequence[Any], max_bytes: int) -> Any:
        return cut(taken, max_bytes)[0], ()

    patch.setattr(delivery, "cut", shortened)


@mutation
def one_bad_message_takes_its_batch_along(patch: pytest.MonkeyPatch) -> None:
    async def all_or_none(self: Any, events: Sequence[Any]) -> Sequence[Any]:
        try:
            return await self._patiently(events)
        except Unusable as error:
            return [error for _ in events]

    patch.setattr(StageDelivery, "_react", all_or_none)


@mutation
def what_a_neighbour_cannot_do_now_is_set_aside(patch: pytest.MonkeyPatch) -> None:
    async def impatient(self: Any, events: Sequence[Any]) -> Sequence[Any]:
        try:
            return await self.stage.react(events)
        except Unavailable as error:
            raise Unusable(str(error)) from error

    patch.setattr(StageDelivery, "_patiently", impatient)


@mutation
def what_cannot_be_used_is_dropped(patch: pytest.MonkeyPatch) -> None:
    async def dropped(*_: Any) -> None:
        pass

    patch.setattr(StageDelivery, "_set_aside", dropped)


@mutation
def what_came_after_its_forgetting_stays_in_the_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(record_writer, "outlived", _nothing)


@mutation
def the_memories_of_a_forgotten_user_stay_in_the_log(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(record_writer, "leading", _nothing)


@mutation
def only_the_first_memories_of_a_forgotten_user_leave_the_log(patch: pytest.MonkeyPatch) -> None:
    gone_with = RemoteRecords.gone_with

    async def first(self: Any, forgetting: Any, after: str, limit: int) -> Sequence[Any]:
        return [] if after else await gone_with(self, forgetting, after, limit)

    patch.setattr(RemoteRecords, "gone_with", first)


@mutation
def offsets_are_committed_before_what_follows(patch: pytest.MonkeyPatch) -> None:
    follow = StageDelivery._follow  # pyright: ignore[reportPrivateUsage]

    async def later(self: Any, done: Sequence[Any]) -> None:
        with suppress(Unavailable):
            await follow(self, done)

    patch.setattr(StageDelivery, "_follow", later)


@mutation
def a_forgetting_outlives_what_came_after_it(patch: pytest.MonkeyPatch) -> None:
    behind = record_writer.behind

    def only_forgettings(last: Any, state: Any) -> Any:
        return behind(last, state) if isinstance(state, MemoryForgotten) else None

    patch.setattr(record_writer, "behind", only_forgettings)


@mutation
def what_is_forgotten_is_heard_for_ever(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(conversations_in_memory.ConversationsInMemory, "left_by", _nothing)


@mutation
def a_plain_event_behind_a_reading_of_it_ends_the_log(patch: pytest.MonkeyPatch) -> None:
    def unread(*_: Any) -> dict[int, UUID]:
        return {}

    patch.setattr(record_writer, "last_read", unread)


@mutation
def the_same_event_takes_back_what_was_heard(patch: pytest.MonkeyPatch) -> None:
    def anything_equal(some: Sequence[Point]) -> Some:
        return Some((points.replaceable(some), *(HasId(point.id) for point in some)))

    def unheard(event: Any, known: Any, forgotten: Any) -> Any:
        known = {key: replace(each, context=0) for key, each in known.items()}
        return states.decide(event, known=known, forgotten=forgotten)

    patch.setattr(points_in_memory, "replaceable", anything_equal)
    patch.setattr(index, "decide", unheard)


@mutation
def who_leaves_every_conversation_is_heard_for_ever(patch: pytest.MonkeyPatch) -> None:
    changes_in = contextualizer.changes_in

    def of_conversations(notices: Any) -> Any:
        return replace(changes_in(notices), alone=set[UUID]())

    patch.setattr(contextualizer, "changes_in", of_conversations)


@mutation
def a_reading_is_on_its_way_before_it_is_acknowledged(patch: pytest.MonkeyPatch) -> None:
    stage = contextualizer.stage

    def hasty(records: Any) -> Any:
        made = stage(records)

        async def react(notices: Sequence[Any]) -> Sequence[Any]:
            told = await made.react(notices)
            async for _ in made.follow(list(zip(notices, told, strict=True))):
                pass
            return told

        return replace(made, react=react)

    patch.setattr(contextualizer, "stage", hasty)


@mutation
def a_reading_that_arrived_is_still_on_its_way(patch: pytest.MonkeyPatch) -> None:
    is_on_its_way = contextualizer.is_on_its_way

    def for_ever(sent: Any, reading: Any) -> bool:
        return is_on_its_way(sent, replace(reading, heard=0))

    patch.setattr(contextualizer, "is_on_its_way", for_ever)


def _nothing(*_: Any) -> Sequence[Any]:
    return []


def _no(*_: Any) -> bool:
    return False


def _replace(patch: pytest.MonkeyPatch, name: str, value: Any, *modules: Any) -> None:
    for module in modules:
        patch.setattr(module, name, value)

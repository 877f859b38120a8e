"""Mem0's own clients work against the stand-in as against the platform."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import httpx
import pytest

from pipeline.sources.mem0_sim.server import Mem0Sim

USER = {"filters": {"user_id": "alice"}}


async def told(client: Any, text: str = "I love Thai food", **scope: Any) -> dict[str, Any]:
    """A memory of alice, as it was answered."""
    answered = await client.add(text, infer=False, **(scope or {"user_id": "alice"}))
    return answered["results"][0]


async def every_method(call: Callable[..., Any], client: Any) -> None:
    """What both kinds of clients can do, each method once."""
    added = await call(client.add, "I love Thai food", user_id="alice", infer=False)
    assert added["status"] == "SUCCEEDED"
    memory_id = added["results"][0]["id"]
    assert added["results"][0] == {
        "id": memory_id,
        "data": {"memory": "I love Thai food"},
        "event": "ADD",
    }
    pending = await call(client.add, [{"role": "user", "content": "I ski"}], user_id="bob")
    assert pending["status"] == "PENDING"
    assert (await call(client.get, memory_id))["memory"] == "I love Thai food"
    await call(client.update, memory_id, text="I love Lao food", metadata={"a": 1})
    changed = await call(client.get, memory_id)
    assert (changed["memory"], changed["metadata"]) == ("I love Lao food", {"a": 1})
    listed = await call(client.get_all, **USER, page=1, page_size=10)
    assert (listed["count"], listed["next"], listed["previous"]) == (1, None, None)
    found = await call(client.search, "lao food", **USER)
    assert [hit["id"] for hit in found["results"]] == [memory_id]
    history = await call(client.history, memory_id)
    assert [entry["event"] for entry in history] == ["ADD", "UPDATE"]
    assert {e["name"] for e in (await call(client.users))["results"]} == {"alice", "bob"}
    await call(client.batch_update, [{"memory_id": memory_id, "text": "I love Khmer food"}])
    await call(client.feedback, memory_id, feedback="positive")
    project = await call(client.project.get)
    assert project["project_id"] == "project-stand-in"
    hook = await call(client.create_webhook, "http://x.example", "hook", "p", ["memory:add"])
    await call(client.update_webhook, hook["webhook_id"], name="other")
    assert (await call(client.get_webhooks, "p"))[0]["name"] == "other"
    await call(client.delete_webhook, hook["webhook_id"])
    await call(client.delete, memory_id)
    assert [e["event"] for e in await call(client.history, memory_id)][-1] == "DELETE"
    assert "event_id" in await call(client.delete_all, user_id="bob")
    other = await call(client.add, "I ski", user_id="bob", infer=False)
    await call(client.batch_delete, [{"memory_id": other["results"][0]["id"]}])
    await call(client.add, "I ski", user_id="bob", infer=False)
    await call(client.delete_users, user_id="bob")
    await call(client.add, "I ski", user_id="bob", infer=False)
    await call(client.reset)
    assert (await call(client.users))["results"] == []


async def test_every_method_of_the_asynchronous_client_works(client: Any):
    async def call(method: Any, *args: Any, **kwargs: Any) -> Any:
        return await method(*args, **kwargs)

    await every_method(call, client)


async def test_every_method_of_the_synchronous_client_works(address: str):
    from mem0 import MemoryClient

    async def call(method: Any, *args: Any, **kwargs: Any) -> Any:
        return await asyncio.to_thread(method, *args, **kwargs)

    client = await asyncio.to_thread(MemoryClient, "a-key", address)
    await every_method(call, client)
    client.client.close()


async def test_a_key_that_is_not_valid_is_told(sim: Mem0Sim, address: str, client: Any):
    from mem0 import AsyncMemoryClient
    from mem0.exceptions import AuthenticationError

    sim.project.keys = {"another"}
    with pytest.raises(ValueError, match="Invalid API key"):
        await asyncio.to_thread(AsyncMemoryClient, "a-key", address)
    with pytest.raises(AuthenticationError):
        await client.get_all(**USER)


async def test_what_is_not_there_and_what_is_no_id(client: Any):
    from mem0.exceptions import MemoryNotFoundError, ValidationError

    with pytest.raises(MemoryNotFoundError, match="Memory not found!"):
        await client.get(str(uuid4()))
    with pytest.raises(ValidationError):
        await client.get("x")
    with pytest.raises(ValidationError):
        await client.add("nobody's", infer=False)


async def test_an_exact_repeat_is_kept_once(client: Any):
    await told(client)
    assert (await client.add("I love Thai food", user_id="alice", infer=False))["results"] == []
    assert (await client.get_all(**USER))["count"] == 1


async def test_pages_go_on_until_next_is_null_and_the_one_behind_is_invalid(client: Any):
    from mem0.exceptions import MemoryNotFoundError

    for number in range(5):
        await told(client, f"fact {number}")
    pages = [await client.get_all(**USER, page=p, page_size=2) for p in (1, 2, 3)]
    assert [len(page["results"]) for page in pages] == [2, 2, 1]
    assert [page["next"] is None for page in pages] == [False, False, True]
    assert len({row["id"] for page in pages for row in page["results"]}) == 5
    with pytest.raises(MemoryNotFoundError, match=r"Invalid page"):
        await client.get_all(**USER, page=4, page_size=2)


async def test_a_page_holds_at_most_200(sim: Mem0Sim, client: Any):
    scope = {"user_id": "alice", "agent_id": None, "app_id": None, "run_id": None}
    sim.memories.add([f"fact {n}" for n in range(201)], scope, {})
    assert len((await client.get_all(**USER, page=1, page_size=1000))["results"]) == 200
    assert len((await client.get_all(**USER))["results"]) == 100


async def test_entity_ids_beside_the_filters_are_refused(address: str):
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": "Token k"}) as http:
        answered = await http.post("/v3/memories/", json={"user_id": "alice"})
    assert answered.status_code == 400


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({"user_id": "alice"}, {"alice"}),
        ({"user_id": "*"}, {"alice", "bob"}),
        ({"OR": [{"user_id": "*"}, {"agent_id": "*"}]}, {"alice", "bob", None}),
        ({"AND": [{"user_id": "*"}, {"NOT": [{"user_id": "bob"}]}]}, {"alice"}),
        ({"user_id": {"in": ["bob", "carol"]}}, {"bob"}),
        ({"user_id": {"ne": "bob"}}, {"alice"}),
        # An OR beside an AND says nothing.
        ({"AND": [{"user_id": "alice"}], "OR": [{"user_id": "nobody"}]}, {"alice"}),
        ({"AND": [{"user_id": "*"}, {"updated_at": {"gte": "2020-01-01"}}]}, {"alice", "bob"}),
        ({"AND": [{"user_id": "*"}, {"updated_at": {"gte": "2200-01-01T00:00:00Z"}}]}, set()),
    ],
)
async def test_filters(client: Any, filters: dict[str, Any], names: set[str | None]):
    await told(client, user_id="alice")
    await told(client, user_id="bob", run_id="r")
    await told(client, agent_id="bot")
    listed = await client.get_all(filters=filters)
    assert {row["user_id"] for row in listed["results"]} == names


async def test_what_has_expired_is_hidden_not_gone(client: Any):
    memory = await told(client)
    await client.update(memory["id"], expiration_date="2020-01-01")
    assert (await client.get_all(**USER))["count"] == 0
    assert (await client.get_all(**USER, show_expired=True))["count"] == 1
    assert (await client.get(memory["id"]))["expiration_date"] == "2020-01-01"


async def test_a_replica_that_lags_shows_what_was(sim: Mem0Sim, client: Any):
    memory = await told(client)
    sim.replica_lags_s = (60.0,)
    assert (await client.get_all(**USER))["count"] == 0
    sim.replica_lags_s = (0.0,)
    assert (await client.get(memory["id"]))["memory"] == "I love Thai food"


async def test_older_clients_ask_versions_one_and_two(address: str):
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": "Token k"}) as http:
        said = {"messages": [{"role": "user", "content": "I ski"}], "user_id": "al", "infer": False}
        await http.post("/v1/memories/", json=said)
        (one,) = (await http.get("/v1/memories/", params={"user_id": "al"})).json()
        (two,) = (await http.post("/v2/memories/", json={"filters": {"user_id": "al"}})).json()
        asked = {"query": "ski", "user_id": "al"}
        (hit,) = (await http.post("/v1/memories/search/", json=asked)).json()
    assert one["id"] == two["id"] == hit["id"]


async def test_the_events_tell_of_deletions(client: Any, address: str):
    memory = await told(client)
    await client.delete(memory["id"])
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": "Token k"}) as http:
        listed = (await http.get("/v1/memories/events/", params={"page": 1, "limit": 1})).json()
    assert listed["count"] == 2
    assert (listed["results"][0]["event"], listed["results"][0]["memory_id"]) == (
        "DELETE",
        memory["id"],
    )

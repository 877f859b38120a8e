"""Mem0's own clients work against the stand-in as against the platform."""

import asyncio
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from pipeline.sources.mem0_sim.routes import Request
from pipeline.sources.mem0_sim.server import Mem0Sim

KEY = {"authorization": "Token k"}
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


@pytest.mark.parametrize("output_format", [None, "v1.1"])
async def test_older_clients_are_answered_in_the_form_they_ask_for(
    address: str, output_format: str | None
):
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": "Token k"}) as http:
        given = {"user_id": "al", "output_format": output_format}
        said = {"messages": [{"role": "user", "content": "I ski"}], "infer": False, **given}
        added = (await http.post("/v1/memories/", json=said)).json()
        found = (await http.post("/v1/memories/search/", json={"query": "ski", **given})).json()
    rows = [(told["results"] if output_format else told) for told in (added, found)]
    assert rows[0][0]["data"] == {"memory": "I ski"}
    assert rows[0][0]["id"] == rows[1][0]["id"]


@pytest.mark.parametrize(
    ("path", "authorization"),
    [
        ("/v1/ping", "Token k"),
        ("//v1/ping/", "token k"),
        ("/v1/ping/?org_id=o&project_id=p", "Bearer k"),
        ("/v1/ping/", "Token   k"),
    ],
)
async def test_clients_spell_paths_and_keys_as_they_like(
    address: str, path: str, authorization: str
):
    async with httpx.AsyncClient(headers={"Authorization": authorization}) as http:
        assert (await http.get(address + path)).json()["project_id"] == "project-stand-in"


@pytest.mark.parametrize("authorization", ["", "Token", "Basic k", "k"])
async def test_who_brings_no_key_is_refused(address: str, authorization: str):
    async with httpx.AsyncClient(headers={"Authorization": authorization}) as http:
        answered = await http.get(address + "/v1/ping/")
    assert (answered.status_code, "detail" in answered.json()) == (401, True)


async def test_what_there_is_not_is_told_as_the_platform_tells_it(address: str):
    async with httpx.AsyncClient(base_url=address, headers={"Authorization": "Token k"}) as http:
        assert (await http.patch("/v1/ping/")).status_code == 405
        assert (await http.get("/v9/")).json() == {"detail": "Not found."}


JUNK: list[Any] = [None, True, -1, 1e300, "", " ", "x", [], [1], [[]], {}, {"x": {}}, {"gt": []}]
FIELDS = (
    *("messages", "user_id", "agent_id", "metadata", "filters", "timestamp", "expiration_date"),
    *("text", "memories", "query", "top_k", "threshold", "fields", "categories", "page"),
    *("start_date", "show_expired", "infer", "memory_id", "output_format"),
)


def test_no_request_is_too_odd_for_an_answer(sim: Mem0Sim):
    """Whatever stands in a body: an answer in JSON, and never a fault of ours."""
    chance = random.Random(7)
    scope = {"user_id": "alice", "agent_id": None, "app_id": None, "run_id": None}
    (row,) = sim.memories.add(["I ski"], scope, {})
    there = f"/v1/memories/{row['id']}/"
    posts = [f"/v{version}/memories/{what}" for version in (1, 2, 3) for what in ("", "search/")]
    asked = [("POST", path) for path in (*posts, "/v3/memories/add/", "/v1/feedback/")]
    asked += [("PUT", there), ("PUT", "/v1/batch/"), ("DELETE", "/v1/batch/")]
    statuses: set[int] = set()
    for _ in range(5_000):
        method, path = chance.choice(asked)
        body: dict[str, Any] = {"messages": "I ski", "user_id": "alice", "query": "ski"}
        body |= {field: chance.choice(JUNK) for field in chance.sample(FIELDS, 3)}
        if chance.random() < 0.3:
            names = ["user_id", "created_at", "categories", "metadata", "AND", "OR", "NOT"]
            body["filters"] = {chance.choice(names): chance.choice(JUNK)}
        given = Request(method, path, headers=KEY, body=json.dumps(body).encode())
        status, _, answered = sim.respond(given)
        statuses.add(status)
        assert json.loads(answered) is not None
    assert statuses == {200, 400, 404}


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000, b'{"filters":' * 20_000])
def test_a_body_that_is_no_json_is_refused(sim: Mem0Sim, body: bytes):
    assert sim.respond(Request("POST", "/v3/memories/", headers=KEY, body=body))[0] == 400


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


async def test_what_the_readme_changes_in_it_is_changed(address: str, sim: Mem0Sim, project: Path):
    readme = (project / "README.md").read_text("utf-8")
    python = re.findall(r"^```python\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (snippet,) = [one for one in python if "from mem0" in one]
    program = snippet.replace("http://localhost:8888", address)
    names: dict[str, Any] = {}
    await asyncio.to_thread(exec, program, names)  # off the loop on which the stand-in answers
    names["client"].client.close()
    assert len({change.memory_id for change in sim.memories.log}) == 1
    assert [change.before is None for change in sim.memories.log] == [True, False, False]
    assert sim.memories.rows == {}

"""One request to Mem0's API -> its answer. Paths, shapes, paging and errors are the platform's.

Versions 1 and 2 of listing, searching and adding are there too: older clients ask for them. So is what other
people's clients do with a path or a header: no slash at its end, two at its start, `token` for `Token`.
Exports, profiles, and members of a project are not there.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode
from uuid import UUID

from pipeline.sources.mem0_sim.filters import ENTITIES, BadRequest, Row, Test, at, compiled
from pipeline.sources.mem0_sim.memories import Memories, iso

MAX_PAGE_SIZE = 200
PROJECT_ID = "project-stand-in"
TYPES = {"user": "user_id", "agent": "agent_id", "app": "app_id", "run": "run_id"}


@dataclass(frozen=True)
class Request:
    """What was asked. `lag_s`: how far behind the replica is that reads for it."""

    method: str
    path: str
    """As it was sent: still quoted."""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    lag_s: float = 0.0

    @property
    def params(self) -> dict[str, str]:
        return dict(parse_qsl(self.query, keep_blank_values=True))

    def json(self) -> Any:
        """The body. Raises BadRequest."""
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise BadRequest(f"JSON parse error - {error}") from error

    def object(self) -> Row:
        """The body, an object. Raises BadRequest."""
        read = self.json()
        if not isinstance(read, dict):
            raise BadRequest("Invalid data. Expected a dictionary.")
        return read


@dataclass(frozen=True)
class Answer:
    """What is answered, as JSON."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


GONE = Answer(404, {"error": "Memory not found!"})
NO_SUCH_PAGE = Answer(404, {"detail": "Invalid page."})
NO_SUCH_PATH = Answer(404, {"detail": "Not found."})


@dataclass
class Project:
    """One project: who it is, what it holds, how it is set."""

    memories: Memories
    org_id: str = "org-stand-in"
    project_id: str = PROJECT_ID
    user_email: str = "operator@example.org"
    keys: set[str] | None = None
    """The API keys that are valid; None: any."""
    settings: Row = field(default_factory=dict[str, Any])
    webhooks: dict[int, Row] = field(default_factory=dict[int, Row])
    asked: dict[str, int] = field(default_factory=dict[str, int])
    """How often each route was asked."""


Handler = Callable[..., Answer]


def answer(project: Project, request: Request) -> Answer:
    """The platform's answer."""
    project.memories.catch_up()
    path = "/" + request.path.strip("/") + "/"
    known = [(m, found, h) for m, p, h in _ROUTES if (found := p.fullmatch(path))]
    for method, found, handler in known:
        if method != request.method:
            continue
        project.asked[handler.__name__] = project.asked.get(handler.__name__, 0) + 1
        refused = _refused(project, request)
        if refused is not None:
            return refused
        try:
            return handler(project, request, *map(unquote, found.groups()))
        except BadRequest as error:
            return Answer(400, {"error": str(error), "detail": str(error)})
        except RecursionError:
            return Answer(400, {"detail": "Nested too deeply."})
    if known:
        return Answer(405, {"detail": f'Method "{request.method}" not allowed.'})
    return NO_SUCH_PATH


def _refused(project: Project, request: Request) -> Answer | None:
    kind, _, key = request.headers.get("authorization", "").strip().partition(" ")
    if kind.lower() not in ("token", "bearer") or not key.strip():
        return Answer(401, {"detail": "Authentication credentials were not provided."})
    if project.keys is not None and key.strip() not in project.keys:
        return Answer(401, {"detail": "Invalid API key."})
    return None


# Handlers


def ping(project: Project, _: Request) -> Answer:
    return Answer(
        200,
        {
            "status": "ok",
            "org_id": project.org_id,
            "project_id": project.project_id,
            "user_email": project.user_email,
        },
    )


def add(project: Project, request: Request) -> Answer:
    given = _checked(request.object())
    scope = _scope({**_object(given, "filters"), **given})
    texts = _texts(given.get("messages"))
    memories = project.memories
    event_id = str(memories.new_id())
    if given.get("infer", True):
        memories.requests[event_id] = {"id": event_id, "status": "PENDING", "results": []}
        memories.later(lambda: _finish(project, event_id, memories.add(texts, scope, given)))
        told = "Memory processing has been queued for background execution"
        return Answer(200, {"message": told, "event_id": event_id, "status": "PENDING"})
    _finish(project, event_id, memories.add(texts, scope, given))
    done = memories.requests[event_id]
    told = {"message": "Memories were added.", "event_id": event_id}
    return Answer(200, told | {name: done[name] for name in ("status", "results")})


def add_v1(project: Project, request: Request) -> Answer:
    answered = add(project, request)
    if answered.status != 200 or request.object().get("output_format") == "v1.1":
        return answered
    return Answer(200, answered.body.get("results", [answered.body]))


def _checked(given: Row) -> Row:
    """What is said of a memory, as far as its kinds are right. Raises BadRequest."""
    _object(given, "metadata")
    if given.get("timestamp") is not None and at(given["timestamp"]) is None:
        raise BadRequest("timestamp: seconds since 1970, or a date as in 2025-01-31T08:20:15Z.")
    expires = given.get("expiration_date")
    if expires is not None and (not isinstance(expires, str) or at(expires) is None):
        raise BadRequest("expiration_date: a date as in 2025-01-31.")
    if not isinstance(given.get("text", ""), str):
        raise BadRequest("text: Not a valid string.")
    return given


def _object(given: Row, name: str) -> Row:
    value = given.get(name)
    if value is not None and not isinstance(value, dict):
        raise BadRequest(f"{name}: Expected a dictionary.")
    return value or {}


def _names(given: Row, name: str) -> list[str]:
    value = given.get(name)
    if value is None or isinstance(value, str):
        return [value] if value else []
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadRequest(f"{name}: Expected a list of strings.")
    return value


def _finish(project: Project, event_id: str, added: Sequence[Row]) -> None:
    results = [
        {"id": row["id"], "data": {"memory": row["memory"]}, "event": "ADD"} for row in added
    ]
    told: Row = {"id": event_id, "status": "SUCCEEDED", "results": results}
    project.memories.requests[event_id] = told


def _scope(given: Row) -> Row:
    scope = {name: given.get(name) for name in ENTITIES}
    if not any(scope.values()):
        raise BadRequest("At least one of user_id, agent_id, app_id or run_id is required.")
    if any(isinstance(value, dict | list) for value in scope.values()):
        raise BadRequest("user_id, agent_id, app_id, run_id: Not a valid string.")
    return {name: None if value in (None, "") else str(value) for name, value in scope.items()}


def _texts(messages: Any) -> list[str]:
    if isinstance(messages, str) and messages.strip():
        return [messages]
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages: This field is required.")
    texts = [_content(one) for one in messages]
    return [text for text in texts if text]


def _content(message: Any) -> str:
    if not isinstance(message, dict) or "content" not in message:
        raise BadRequest("messages: each takes a role and a content.")
    content = message["content"]
    return content if isinstance(content, str) else json.dumps(content)


def list_memories(project: Project, request: Request) -> Answer:
    given = request.object()
    named = sorted(set(ENTITIES) & given.keys())
    if named:
        raise BadRequest(f"{', '.join(named)}: entity ids go into filters.")
    return _listed(project, request, given, given.get("filters") or {})


def list_memories_v1(project: Project, request: Request) -> Answer:
    given = {name: value for name, value in request.params.items() if name in ENTITIES}
    answered = _listed(project, request, {}, given)
    paged = "page" in request.params or "page_size" in request.params
    return answered if paged or answered.status != 200 else Answer(200, answered.body["results"])


def list_memories_v2(project: Project, request: Request) -> Answer:
    given = request.object()
    answered = _listed(project, request, given, given.get("filters") or {})
    paged = "page" in {*request.params, *given}
    return answered if paged or answered.status != 200 else Answer(200, answered.body["results"])


def _listed(project: Project, request: Request, given: Row, filters: Any) -> Answer:
    rows, fields = _found(project, given, filters, request.lag_s), _names(given, "fields")
    return _page(request, [*rows], lambda row: _fields(row, fields), given)


def _found(project: Project, given: Row, filters: Any, lag_s: float) -> list[Row]:
    today = iso(project.memories.clock())[:10]
    shown, wanted = _shown(given, today), compiled(filters)
    name = json.dumps([given, filters, today], sort_keys=True)
    return project.memories.found(lambda row: shown(row) and wanted(row), name, lag_s)


def _shown(given: Row, today: str) -> Test:
    """What is asked for beside the filters. What has expired is hidden unless it is asked for."""
    expired = bool(given.get("show_expired"))
    latest, categories = bool(given.get("latest_only")), set(_names(given, "categories"))
    since, until = _date(given, "start_date"), _date(given, "end_date")

    def shown(row: Row) -> bool:
        if latest and row["replaced_by"]:
            return False
        if categories and not categories & set(row["categories"] or ()):
            return False
        if since or until:
            created = at(row["created_at"])
            if created is None or (since and created < since) or (until and created > until):
                return False
        return True

    def unexpired(row: Row) -> bool:
        expires = row["expiration_date"]
        return expires is None or str(expires)[:10] >= today

    return shown if expired else lambda row: shown(row) and unexpired(row)


def _date(given: Row, name: str) -> datetime | None:
    if given.get(name) in (None, ""):
        return None
    if (read := at(given[name])) is None:
        raise BadRequest(f"{name}: a date as in 2025-01-31 or 2025-01-31T08:20:15Z.")
    return read


def _fields(row: Row, fields: Sequence[str]) -> Row:
    return {name: row[name] for name in ("id", *fields) if name in row} if fields else row


def _page(
    request: Request,
    rows: Sequence[Any],
    told: Callable[[Any], Any] = lambda row: row,
    given: Mapping[str, Any] = {},
) -> Answer:
    size_name = "limit" if "limit" in request.params else "page_size"
    asked = {**given, **request.params}
    size = min(MAX_PAGE_SIZE, _number(asked.get(size_name), 100))
    page = _number(asked.get("page"), 1, invalid=0)
    pages = max(1, -(-len(rows) // size))
    if not 1 <= page <= pages:
        return NO_SUCH_PAGE
    start = (page - 1) * size

    def url(number: int) -> str | None:
        query = urlencode({**request.params, "page": number})
        host = request.headers.get("host", "api.mem0.ai")
        return f"http://{host}{request.path}?{query}" if 1 <= number <= pages else None

    return Answer(
        200,
        {
            "count": len(rows),
            "next": url(page + 1),
            "previous": url(page - 1),
            "results": [told(row) for row in rows[start : start + size]],
        },
    )


def _number(value: Any, default: int, *, invalid: int | None = None) -> int:
    if value is None:
        return default
    try:
        number = int(value)
    except (TypeError, ValueError):
        number = 0
    return number if number > 0 else default if invalid is None else invalid


def search(project: Project, request: Request) -> Answer:
    given = request.object()
    query = str(given.get("query") or "").strip()
    if not query:
        raise BadRequest("query: This field may not be blank.")
    scope = {name: given[name] for name in ENTITIES if given.get(name)}
    rows = _found(project, given, given.get("filters") or scope, request.lag_s)
    fields = [*fields, "score"] if (fields := _names(given, "fields")) else []
    scored = [{**row, "score": _score(query, row["memory"])} for row in rows]
    least = given.get("threshold")
    least = 0.1 if least is None else least
    if not isinstance(least, int | float):
        raise BadRequest("threshold: A valid number is required.")
    hits = sorted((r for r in scored if r["score"] >= least), key=lambda r: -r["score"])
    most = _number(given.get("top_k", given.get("limit")), 10)
    return Answer(200, {"results": [_fields(r, fields) for r in hits[:most]]})


def search_v1(project: Project, request: Request) -> Answer:
    answered = search(project, request)
    if request.object().get("output_format") == "v1.1":
        return answered
    return Answer(200, answered.body["results"])


def _score(query: str, text: str) -> float:
    """The share of the question's words that the memory has: the platform compares meanings."""
    asked, said = (set(re.findall(r"\w+", t.casefold())) for t in (query, text))
    return round(len(asked & said) / len(asked), 4) if asked else 0.0


def get(project: Project, request: Request, memory_id: str) -> Answer:
    row = project.memories.seen(request.lag_s).get(_uuid(memory_id))
    return GONE if row is None else Answer(200, row)


def update(project: Project, request: Request, memory_id: str) -> Answer:
    given = _checked(request.object())
    if not given:
        raise BadRequest("Give text, metadata, timestamp or expiration_date.")
    row = project.memories.update(_uuid(memory_id), given)
    return GONE if row is None else Answer(200, row)


def delete(project: Project, _: Request, memory_id: str) -> Answer:
    if not project.memories.delete(_uuid(memory_id)):
        return GONE
    return Answer(200, {"message": "Memory deleted successfully!"})


def _uuid(memory_id: Any) -> str:
    try:
        return str(UUID(str(memory_id)))
    except ValueError:
        raise BadRequest("Invalid memory id: it must be a UUID.") from None


def delete_all(project: Project, request: Request) -> Answer:
    given = {name: value for name, value in request.params.items() if name in ENTITIES}
    if not given:
        raise BadRequest("At least one of user_id, agent_id, app_id or run_id is required.")
    wanted, memories = compiled(given), project.memories
    event_id = str(memories.new_id())
    memories.requests[event_id] = {"id": event_id, "status": "PENDING", "results": []}

    def do() -> None:
        for row in [row for row in memories.rows.values() if wanted(row)]:
            memories.delete(row["id"])
        _finish(project, event_id, [])

    memories.later(do)
    told = "Memories are being deleted in the background."
    return Answer(200, {"message": told, "event_id": event_id})


def history(project: Project, _: Request, memory_id: str) -> Answer:
    entries = project.memories.history.get(_uuid(memory_id))
    return GONE if entries is None else Answer(200, entries)


def events(project: Project, request: Request) -> Answer:
    return _page(request, project.memories.events[::-1])


def event(project: Project, _: Request, event_id: str) -> Answer:
    told = project.memories.requests.get(event_id)
    return NO_SUCH_PATH if told is None else Answer(200, told)


def entities(project: Project, request: Request) -> Answer:
    return _page(request, _entities(project, request.lag_s))


def _entities(project: Project, lag_s: float) -> list[Row]:
    found: dict[tuple[str, str], Row] = {}
    for row in project.memories.seen(lag_s).values():
        for kind, column in TYPES.items():
            name = row[column]
            if name is None:
                continue
            entity = found.setdefault((kind, name), _entity(kind, name, len(found) + 1, row))
            entity["total_memories"] += 1
    return list(found.values())


def _entity(kind: str, name: str, number: int, row: Row) -> Row:
    return {
        "id": number,
        "name": name,
        "type": kind,
        "total_memories": 0,
        "metadata": None,
        "owner": "operator@example.org",
        "created_at": row["created_at"],
        "updated_at": row["updated_at"],
    }


def delete_entity_v1(project: Project, request: Request, kind: str, number: str) -> Answer:
    """By the entity's number, as older clients know it, or by its name."""
    everything = _entities(project, request.lag_s)
    named = [e["name"] for e in everything if e["type"] == kind and str(e["id"]) == number]
    return delete_entity(project, request, kind, named[0] if named else number)


def delete_entity(project: Project, _: Request, kind: str, name: str) -> Answer:
    column, memories = TYPES.get(kind), project.memories
    if column is None or (column, name) not in memories.entities:
        return Answer(404, {"error": "Entity not found!"})
    # One whose memories were deleted before is there until now.
    memories.entities.discard((column, name))
    for memory_id in [row["id"] for row in memories.rows.values() if row[column] == name]:
        memories.delete(memory_id)
    return Answer(200, {"message": "Entity deleted successfully!"})


def batch_update(project: Project, request: Request) -> Answer:
    given = [_checked(one) for one in _batch(request)]
    if any(_uuid(one["memory_id"]) not in project.memories.rows for one in given):
        return GONE
    for one in given:
        project.memories.update(one["memory_id"], {k: v for k, v in one.items() if v is not None})
    return Answer(200, {"message": f"Successfully updated {len(given)} memories"})


def batch_delete(project: Project, request: Request) -> Answer:
    given = _batch(request)
    gone = sum(project.memories.delete(_uuid(one["memory_id"])) for one in given)
    return Answer(200, {"message": f"Successfully deleted {gone} memories"})


def _batch(request: Request) -> list[Row]:
    given = request.object().get("memories")
    if not isinstance(given, list) or not all(
        isinstance(g, dict) and "memory_id" in g for g in given
    ):
        raise BadRequest("memories: a list of objects with a memory_id.")
    return given


def feedback(project: Project, request: Request) -> Answer:
    given = request.object()
    if _uuid(str(given.get("memory_id"))) not in project.memories.rows:
        return GONE
    return Answer(200, {"id": str(project.memories.new_id()), **given})


def get_project(project: Project, request: Request, *_: str) -> Answer:
    told: Row = {
        "project_id": project.project_id,
        "name": "stand-in",
        "custom_instructions": None,
        "custom_categories": None,
        **project.settings,
    }
    wanted = [v for name, v in parse_qsl(request.query) if name == "fields"]
    return Answer(200, {name: told[name] for name in wanted if name in told} if wanted else told)


def update_project(project: Project, request: Request, *_: str) -> Answer:
    project.settings |= request.object()
    return Answer(200, {"message": "Project updated successfully"})


def webhooks(project: Project, _: Request, __: str) -> Answer:
    return Answer(200, list(project.webhooks.values()))


def create_webhook(project: Project, request: Request, project_id: str) -> Answer:
    number = max(project.webhooks, default=0) + 1
    project.webhooks[number] = {
        "webhook_id": number,
        "project": project_id,
        "is_active": True,
        "created_at": iso(project.memories.clock()),
        **request.object(),
    }
    return Answer(200, project.webhooks[number])


def update_webhook(project: Project, request: Request, number: str) -> Answer:
    if int(number) not in project.webhooks:
        return NO_SUCH_PATH
    project.webhooks[int(number)] |= request.object()
    return Answer(200, {"message": "Webhook updated successfully"})


def delete_webhook(project: Project, _: Request, number: str) -> Answer:
    if project.webhooks.pop(int(number), None) is None:
        return NO_SUCH_PATH
    return Answer(200, {"message": "Webhook deleted successfully"})


_PROJECT = "/api/v1/orgs/organizations/([^/]+)/projects/([^/]+)/"
_ROUTES: Sequence[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(path), handler)
    for method, path, handler in (
        ("GET", "/v1/ping/", ping),
        ("POST", "/v3/memories/add/", add),
        ("POST", "/v1/memories/", add_v1),
        ("POST", "/v3/memories/", list_memories),
        ("POST", "/v2/memories/", list_memories_v2),
        ("GET", "/v1/memories/", list_memories_v1),
        ("DELETE", "/v1/memories/", delete_all),
        ("POST", "/v3/memories/search/", search),
        ("POST", "/v2/memories/search/", search_v1),
        ("POST", "/v1/memories/search/", search_v1),
        ("GET", "/v1/memories/events/", events),
        ("GET", "/v1/events/", events),
        ("GET", "/v1/event/([^/]+)/", event),
        ("GET", "/v1/memories/([^/]+)/", get),
        ("PUT", "/v1/memories/([^/]+)/", update),
        ("DELETE", "/v1/memories/([^/]+)/", delete),
        ("GET", "/v1/memories/([^/]+)/history/", history),
        ("GET", "/v1/entities/", entities),
        ("DELETE", "/v2/entities/([^/]+)/([^/]+)/", delete_entity),
        ("DELETE", "/v1/entities/([^/]+)/([^/]+)/", delete_entity_v1),
        ("PUT", "/v1/batch/", batch_update),
        ("DELETE", "/v1/batch/", batch_delete),
        ("POST", "/v1/feedback/", feedback),
        ("GET", _PROJECT, get_project),
        ("PATCH", _PROJECT, update_project),
        ("GET", "/api/v1/webhooks/projects/([^/]+)/", webhooks),
        ("POST", "/api/v1/webhooks/projects/([^/]+)/", create_webhook),
        ("PUT", r"/api/v1/webhooks/(\d+)/", update_webhook),
        ("DELETE", r"/api/v1/webhooks/(\d+)/", delete_webhook),
    )
]

"""A model -> what the embedder needs of it, kept in the cache. Runs as a process: see `child`.

Only what is missing is made. A lock lets one process at a time make it; the next one finds it done.
Progress and refusals go to stdout, a JSON object a line; whatever libraries print goes to stderr.
"""

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from pipeline.errors import Refused, Unavailable
from pipeline.models.backends import forbid_telemetry, graph_of
from pipeline.models.embedder import ModelEmbedder
from pipeline.models.measuring import choose, measure
from pipeline.models.prepared import BACKENDS, Backend, Choice, Graph, Prepared, this_machine
from pipeline.models.weights import fetch, locate

Say = Callable[[str], None]


def main() -> None:
    """Prepares what the first argument asks for."""
    tell = _claim_stdout()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    task: dict[str, Any] = json.loads(sys.argv[1])
    cache_dir = Path(task["cache_dir"])
    say = partial(tell, "progress")
    try:
        prepared = Prepared.of(locate(task["model"]), cache_dir)
        cache_dir.mkdir(parents=True, exist_ok=True)
        with _alone(prepared, say):
            prepare(prepared, task["backend"], threads=task["threads"], say=say)
    except (Refused, Unavailable) as error:
        tell(type(error).__name__, str(error))
    except PermissionError as error:
        tell("Refused", f"{error}: name a cache folder that can be written")
    except OSError as error:
        tell("Unavailable", f"{error}: {cache_dir} must have room for the converted model")


def prepare(
    prepared: Prepared, backend: Backend | Literal["auto"] | None, *, threads: int, say: Say
) -> None:
    """Makes what `backend`, or the measuring of all, needs and does not find; for None the description."""
    _keep_to_ourselves(prepared)
    _describe(prepared, say)
    if backend is None:
        return
    if backend == "auto":
        machine = this_machine(threads=threads)
        choice = prepared.choice(machine)
        if choice is None:
            choice = asyncio.run(_measured(prepared, machine, say))
            prepared.keep_choice(choice)
        backend = choice.backend
    try:
        _make_graphs(prepared, backend, say)
    except OSError:
        raise
    except Exception as error:
        raise Refused(
            f"{prepared.source.name} does not run on {backend} ({error}): choose another backend"
        ) from error


async def _measured(prepared: Prepared, machine: Mapping[str, Any], say: Say) -> Choice:
    """What each backend does; one that cannot run this model on this machine is left out.

    Raises OSError where there is no room for the graphs: that says nothing of the backends.
    """
    embedders, left_out = dict[Backend, ModelEmbedder](), dict[str, str]()
    for backend in BACKENDS:
        try:
            _make_graphs(prepared, backend, say)
            embedders[backend] = ModelEmbedder.load(prepared, backend, threads=machine["threads"])
        except OSError:
            raise
        except Exception as error:
            left_out[backend] = f"{type(error).__name__}: {error}"
    if not embedders:
        raise Refused(f"{prepared.source.name} runs on no backend: {left_out}")
    say(f"measuring {', '.join(embedders)}")
    figures, slow = await measure(embedders)
    return Choice(choose(figures).backend, figures, {**left_out, **slow}, machine)


def _describe(prepared: Prepared, say: Say) -> None:
    if prepared.described and prepared.weights.is_dir():
        return
    say(f"reading the model {prepared.source.name}")
    weights = fetch(prepared.source)
    from pipeline.models.conversion import describe

    prepared.keep_description(*describe(weights))


def _make_graphs(prepared: Prepared, backend: Backend, say: Say) -> None:
    """Converts the model as far as `backend` needs it."""
    needed: dict[Graph | None, tuple[Graph, ...]] = {
        None: (),
        "fp32": ("fp32",),
        "int8": ("fp32", "int8"),
    }
    for graph in needed[graph_of(backend)]:
        if prepared.graph(graph).is_file():
            continue
        from pipeline.models.conversion import make

        say(f"converting {prepared.source.name} to {graph} for OpenVINO, once")
        with prepared.keeping_graph(graph) as path:
            make(graph, prepared, path)


def _keep_to_ourselves(prepared: Prepared) -> None:
    """Nothing leaves this machine but a request for a model of the hub."""
    if isinstance(prepared.source.place, Path):
        os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    forbid_telemetry()


@contextmanager
def _alone(prepared: Prepared, say: Say) -> Generator[None]:
    lock = FileLock(prepared.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process prepares {prepared.source.name}: waiting for it")
        lock.acquire()
    with lock:
        lock.release()
        yield


def _claim_stdout() -> Callable[[str, str], None]:
    """Keeps stdout for our lines; what libraries print to it goes to stderr."""
    report = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(what: str, message: str) -> None:
        report.write(json.dumps({"what": what, "message": message}) + "\n")
        report.flush()

    return tell


def _end_with_parent() -> None:
    """The parent holds the other end of stdin: when it is gone, nobody needs the result now."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()

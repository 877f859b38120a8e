"""A model that was never seen is prepared in a process of its own, once, whoever asks."""

import asyncio
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.errors import Refused, Unavailable
from pipeline.models.embedder import described, open_embedder
from pipeline.models.prepared import Prepared
from pipeline.models.weights import locate
from tests.contract.test_embedder import CACHE, agreement

# torch and its neighbours deprecate a good deal.
pytestmark = pytest.mark.filterwarnings("default")

TEXTS = ["ana plays chess in lisbon", "the cello", "chess " * 100]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights that is unlike the default: narrow, short, and pooled by [CLS]."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *" ".join(TEXTS[:2]).split()]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    limits = {"intermediate_size": 64, "max_position_embeddings": 40}
    config = BertConfig.from_dict({"vocab_size": len(vocabulary), **shape, **limits})
    bare, whole = (tmp_path_factory.mktemp(name) for name in ("bare", "small-model"))
    BertModel(config).save_pretrained(bare)
    BertTokenizer(vocab=vocabulary, model_max_length=40).save_pretrained(bare)
    transformer = Transformer(str(bare))
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="cls")
    SentenceTransformer(modules=[transformer, pooling]).save(str(whole))
    return whole


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


async def test_two_that_start_at_once_prepare_it_once(small_model: Path, cache: Path) -> None:
    heard: tuple[list[str], list[str]] = ([], [])
    one, other = await asyncio.gather(
        *(
            open_embedder(str(small_model), cache_dir=cache, on_progress=said.append)
            for said in heard
        )
    )
    first, second = await one.embed(TEXTS), await other.embed(TEXTS)
    assert [agreement(a, b) for a, b in zip(first, second, strict=True)] == pytest.approx([1] * 3)
    assert sorted(len([line for line in said if "measuring" in line]) for said in heard) == [0, 1]
    assert any("waiting" in line for said in heard for line in said)
    await one.close()
    await other.close()


async def test_who_embeds_nothing_has_it_neither_converted_nor_measured(
    small_model: Path, tmp_path: Path
) -> None:
    told = await described(str(small_model), cache_dir=tmp_path)
    assert told == (locate(str(small_model)).name, 32)
    folder = Prepared.of(locate(str(small_model)), tmp_path).folder
    assert {each.name for each in folder.iterdir()} == {"model.json", "tokenizer.json"}
    heard: list[str] = []
    assert await described(str(small_model), cache_dir=tmp_path, on_progress=heard.append) == told
    assert not heard
    embedder = await open_embedder(str(small_model), backend="torch-fp32", cache_dir=tmp_path)
    assert (embedder.model, embedder.dimensions) == told
    await embedder.close()


async def test_it_says_what_sentence_transformers_says(small_model: Path, cache: Path) -> None:
    from sentence_transformers import SentenceTransformer

    embedder = await open_embedder(
        str(small_model), backend="openvino-fp32", cache_dir=cache, threads=1
    )
    seen = await embedder.embed(TEXTS)
    await embedder.close()
    truth = SentenceTransformer(str(small_model)).encode(TEXTS[:2], normalize_embeddings=True)
    assert (embedder.model, embedder.dimensions) == (locate(str(small_model)).name, 32)
    assert seen[0].text == pytest.approx(truth[0], abs=1e-4)
    assert seen[1].text == pytest.approx(truth[1], abs=1e-4)
    assert len(seen[0].tokens) == len(["ana", "plays", "chess", "lisbon"])
    assert len(seen[2].tokens) == 100


def test_a_folder_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    from pipeline.models.conversion import describe

    (tmp_path / "config.json").write_text('{"model_type": "toaster"}')
    with pytest.raises(Refused, match="name another"):
        describe(tmp_path)


async def test_a_hub_that_cannot_be_reached_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    with pytest.raises(Unavailable, match="name a folder"):
        await open_embedder("nobody/nothing", cache_dir=tmp_path / "cache")


async def test_a_preparation_that_is_cancelled_frees_its_lock(
    small_model: Path, tmp_path: Path
) -> None:
    started = asyncio.Event()
    opening = asyncio.create_task(
        open_embedder(str(small_model), cache_dir=tmp_path, on_progress=lambda _: started.set())
    )
    await started.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    with FileLock(Prepared.of(locate(str(small_model)), tmp_path).lock, timeout=0):
        pass


_LIGHT = """
import asyncio, pathlib, sys
from pipeline.models.embedder import open_embedder
assert not {"torch", "transformers", "openvino", "sentence_transformers"} & set(sys.modules)

async def main():
    cache = pathlib.Path(sys.argv[1])
    opening = [open_embedder(backend="openvino-int8", cache_dir=cache) for _ in range(2)]
    embedders = await asyncio.gather(*opening)
    texts = ["I love spicy Thai food"] * 300
    for [embedding, *_] in await asyncio.gather(*(e.embed(texts) for e in embedders)):
        assert len(embedding.tokens) == 4
    for embedder in embedders:
        await embedder.close()

asyncio.run(main())
heavy = {"torch", "transformers", "sentence_transformers", "nncf"} & set(sys.modules)
assert not heavy, heavy
assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]
"""


async def test_a_prepared_model_opens_without_torch_and_twice_at_once(tmp_path: Path) -> None:
    """In a process of its own: what is imported, and OpenVINO's first call, are a process's."""
    embedder = await open_embedder(backend="openvino-int8", cache_dir=CACHE)
    await embedder.close()
    home = tmp_path / "home"
    home.mkdir()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _LIGHT, str(CACHE)),
        env={"HOME": str(home), "PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, said = await asyncio.wait_for(process.communicate(), timeout=90)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said.decode()
    assert not list(home.iterdir())

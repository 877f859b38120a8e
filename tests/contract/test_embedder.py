"""What every `Embedder` promises, and what only a model can: meaning.

The model is converted and measured once for this user's account, into the folder where the pipeline
keeps it too.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import platformdirs
import pytest

from pipeline.errors import Refused, Unusable
from pipeline.models.calibration import memories
from pipeline.models.embedder import ModelEmbedder, open_embedder
from pipeline.models.hashing import HashingEmbedder
from pipeline.models.prepared import BACKENDS, Backend
from pipeline.models.vectors import MAX_TOKEN_VECTORS
from pipeline.ports import Embedder, Embedding

CACHE = Path(platformdirs.user_cache_dir("hybrid-memory")) / "models"

ODD_TEXTS = (
    "🎉🎉🎉",
    "   ",
    "\u200b",
    "...!?",
    "to be or not to be",
    "東京に住んでいます",
    "أحب القهوة في الصباح",
    "मुझे चाय पसंद है",
    "ฉันชอบกินข้าว",
    "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞",
    "x" * 16_000,
    "\t\n\r",
    "[CLS] [SEP] [MASK] [PAD]",
    "<s></s>",
)


@pytest.fixture(scope="session")
async def of_model() -> AsyncIterator[ModelEmbedder]:
    embedder = await open_embedder(cache_dir=CACHE)
    yield embedder
    await embedder.close()


@pytest.fixture(params=["hashing", "model"])
def embedder(request: pytest.FixtureRequest, of_model: ModelEmbedder) -> Embedder:
    return HashingEmbedder() if request.param == "hashing" else of_model


def agreement(one: Embedding, other: Embedding) -> float:
    """The cosine of the texts' vectors."""
    return float(one.text @ other.text)


def late_interaction(question: Embedding, memory: Embedding) -> float:
    """How well the best token of the memory matches each token of the question, on average."""
    matches = question.tokens.astype(np.float32) @ memory.tokens.astype(np.float32).T
    return float(matches.max(axis=1).mean())


def assert_well_formed(embedding: Embedding, dimensions: int) -> None:
    assert embedding.text.shape == (dimensions,)
    assert embedding.text.dtype == np.float32
    assert np.linalg.norm(embedding.text) == pytest.approx(1, abs=1e-3)
    assert embedding.tokens.ndim == 2
    assert embedding.tokens.shape[1] == 64
    assert len(embedding.tokens) <= MAX_TOKEN_VECTORS
    assert embedding.tokens.dtype == np.float16
    norms = np.linalg.norm(embedding.tokens.astype(np.float32), axis=1)
    assert norms == pytest.approx(np.ones(len(norms)), abs=5e-3)


async def test_no_texts_have_no_embeddings(embedder: Embedder) -> None:
    assert list(await embedder.embed([])) == []


async def test_every_text_has_one_well_formed_embedding(embedder: Embedder) -> None:
    texts = memories(60, seed=5)
    embeddings = await embedder.embed(texts)
    assert len(embeddings) == len(texts)
    for embedding in embeddings:
        assert_well_formed(embedding, embedder.dimensions)


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: ascii(text[:12]))
async def test_odd_texts_have_well_formed_embeddings_too(embedder: Embedder, text: str) -> None:
    [embedding] = await embedder.embed([text])
    assert_well_formed(embedding, embedder.dimensions)


async def test_the_order_is_kept_whatever_the_lengths(embedder: Embedder) -> None:
    texts = [*memories(40, seed=6), "word " * 2000, "hi", *memories(5, seed=7, sentences=(30, 40))]
    together = await embedder.embed(texts)
    for text, embedding in zip(texts, together, strict=True):
        [alone] = await embedder.embed([text])
        assert agreement(alone, embedding) > 0.995
        assert alone.tokens.shape == embedding.tokens.shape


async def test_the_same_text_gives_the_same_vectors(embedder: Embedder) -> None:
    text = "Ana moved to Lisbon on 14 March 2024"
    [first], [second] = await embedder.embed([text]), await embedder.embed([text])
    assert first.text == pytest.approx(second.text, abs=1e-6)
    assert first.tokens == pytest.approx(second.tokens, abs=1e-3)


async def test_concurrent_callers_each_get_their_own(embedder: Embedder) -> None:
    texts = memories(30, seed=8)
    together = await embedder.embed(texts)
    alone = await asyncio.gather(*(embedder.embed([text]) for text in texts))
    for [one], other in zip(alone, together, strict=True):
        assert agreement(one, other) > 0.995


async def test_the_event_loop_goes_on_during_a_batch(embedder: Embedder) -> None:
    pauses_s = list[float]()

    async def tick() -> None:
        while True:
            started = perf_counter()
            await asyncio.sleep(0.005)
            pauses_s.append(perf_counter() - started)

    ticking = asyncio.create_task(tick())
    await embedder.embed(memories(500, seed=9))
    ticking.cancel()
    assert max(pauses_s, default=0) < 0.5


async def test_a_cancelled_caller_disturbs_nobody(embedder: Embedder) -> None:
    given_up = asyncio.create_task(embedder.embed(memories(200, seed=10)))
    await asyncio.sleep(0.01)
    given_up.cancel()
    [embedding] = await embedder.embed(["still here"])
    assert_well_formed(embedding, embedder.dimensions)


async def test_the_tail_of_a_long_text_is_found(embedder: Embedder) -> None:
    filler = " ".join(memories(200, seed=11))[:15_900]
    tail = " The violin of grandmother hangs in the attic of the lighthouse."
    question, tailed, bare = await embedder.embed(
        ["grandmother's violin in the lighthouse", filler + tail, filler]
    )
    assert len(tailed.tokens) == MAX_TOKEN_VECTORS
    assert late_interaction(question, tailed) > late_interaction(question, bare) + 0.1


async def test_what_the_model_would_cut_off_is_in_the_texts_vector(embedder: Embedder) -> None:
    filler = " ".join(memories(200, seed=11))[:2500]
    tail = " The violin of grandmother hangs in the attic of the lighthouse."
    aside, tailed, bare = await embedder.embed([tail, filler + tail, filler])
    assert agreement(aside, tailed) > agreement(aside, bare) + 0.03


async def test_stop_words_and_punctuation_have_no_token_vectors(embedder: Embedder) -> None:
    [embedding] = await embedder.embed(["The cat, and the dog: they sat on a mat!"])
    assert len(embedding.tokens) == len(["cat", "dog", "sat", "mat"])


async def test_a_text_of_stop_words_keeps_them(embedder: Embedder) -> None:
    [embedding] = await embedder.embed(["To be, or not to be?"])
    assert len(embedding.tokens) == 6


async def test_shared_words_bring_texts_closer(embedder: Embedder) -> None:
    one, same, other = await embedder.embed(
        ["Priya plays chess in Nairobi", "In Nairobi Priya plays chess", "invoice 20418 is overdue"]
    )
    assert agreement(one, same) > agreement(one, other)
    assert late_interaction(one, same) > late_interaction(one, other)


def closest(question: Embedding, memories: Sequence[Embedding]) -> int:
    return int(np.argmax([agreement(question, memory) for memory in memories]))


async def test_the_model_knows_what_belongs_together(of_model: ModelEmbedder) -> None:
    question, *memories = await of_model.embed(
        ["dinner ideas", "The server returned 502 again", "I love spicy Thai food", "My car is red"]
    )
    assert closest(question, memories) == 1
    assert of_model.model == "all-MiniLM-L6-v2"
    assert of_model.dimensions == 384


async def test_a_question_overtakes_a_long_batch(of_model: ModelEmbedder) -> None:
    batch = asyncio.create_task(of_model.embed(memories(1000, seed=12)))
    await asyncio.sleep(0.5)
    await of_model.embed(["dinner ideas"])
    assert not batch.done()
    assert len(await batch) == 1000


async def test_a_text_that_is_not_unicode_is_unusable(of_model: ModelEmbedder) -> None:
    with pytest.raises(Unusable, match="surrogate"):
        await of_model.embed(["fine", "not \ud800 fine"])


async def test_a_backend_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Refused, match="choose auto"):
        await open_embedder(backend="abacus", cache_dir=CACHE)  # pyright: ignore[reportArgumentType]


async def test_a_folder_that_does_not_exist_is_refused() -> None:
    with pytest.raises(Refused, match="no folder"):
        await open_embedder("./no/such/folder", cache_dir=CACHE)


@pytest.fixture(scope="module")
async def truth() -> Sequence[Embedding]:
    """What fp32 says."""
    embedder = await open_embedder(backend="openvino-fp32", cache_dir=CACHE)
    vectors = await embedder.embed(memories(20, seed=13))
    await embedder.close()
    return vectors


@pytest.mark.filterwarnings("default")  # torch and its neighbours deprecate a good deal
@pytest.mark.parametrize("backend", BACKENDS)
async def test_every_backend_agrees_with_fp32(backend: Backend, truth: Sequence[Embedding]) -> None:
    embedder = await open_embedder(backend=backend, cache_dir=CACHE)
    vectors = await embedder.embed(memories(20, seed=13))
    await embedder.close()
    assert np.mean([agreement(a, b) for a, b in zip(vectors, truth, strict=True)]) > 0.99
    tokens = [
        np.mean(np.sum(a.tokens.astype(np.float32) * b.tokens.astype(np.float32), axis=1))
        for a, b in zip(vectors, truth, strict=True)
    ]
    assert np.mean(tokens) > 0.99

"""Which backend is taken."""

import asyncio
from collections.abc import Sequence

import pytest

from pipeline.models.hashing import HashingEmbedder
from pipeline.models.measuring import choose, measure
from pipeline.models.prepared import Backend, Figures
from pipeline.ports import Embedding


def figures(
    backend: Backend, texts_per_s: float, *, question_ms: float = 5, cosine: float = 1
) -> Figures:
    return Figures(backend, texts_per_s, question_ms, cosine)


FP32 = figures("torch-fp32", 100)


def test_the_fastest_is_taken() -> None:
    int8 = figures("openvino-int8", 300, cosine=0.997)
    assert choose([FP32, figures("openvino-bf16", 200), int8]) == int8


def test_of_two_that_are_about_as_fast_the_closer_one_is_taken() -> None:
    bf16 = figures("openvino-bf16", 270)
    assert choose([FP32, bf16, figures("openvino-int8", 300, cosine=0.997)]) == bf16


def test_of_two_that_are_as_fast_and_as_close_the_quicker_one_is_taken() -> None:
    openvino = figures("openvino-fp32", 98, question_ms=2)
    assert choose([FP32, openvino]) == openvino


def test_vectors_that_differ_too_much_are_out_of_the_question() -> None:
    assert choose([FP32, figures("openvino-int8", 900, cosine=0.98)]) == FP32


def test_what_keeps_a_question_waiting_is_out_of_the_question() -> None:
    assert choose([FP32, figures("openvino-bf16", 900, question_ms=60)]) == FP32


def test_fp32_is_left_where_nothing_else_fits() -> None:
    slow = figures("torch-fp32", 1, question_ms=500)
    assert choose([slow, figures("openvino-int8", 900, cosine=0.5)]) == slow


class Slow(HashingEmbedder):
    """Takes its time for each call."""

    async def embed(self, texts: Sequence[str]) -> Sequence[Embedding]:
        await asyncio.sleep(0.05)
        return await super().embed(texts)


async def test_measuring_tells_of_each_backend_what_it_does() -> None:
    hashing = HashingEmbedder()
    measured, left_out = await measure({"torch-fp32": hashing, "openvino-fp32": hashing})
    assert [of.backend for of in measured] == ["torch-fp32", "openvino-fp32"]
    assert [of.cosine for of in measured] == pytest.approx([1, 1])
    assert all(of.texts_per_s > 0 and of.question_ms > 0 for of in measured)
    assert left_out == {}


async def test_a_backend_that_answers_slowly_is_not_tried_further() -> None:
    measured, left_out = await measure({"torch-fp32": HashingEmbedder(), "openvino-bf16": Slow()})
    assert [of.backend for of in measured] == ["torch-fp32"]
    assert "a question takes" in left_out["openvino-bf16"]

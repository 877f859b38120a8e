"""Labelled questions -> a small cross-encoder, and questions that it has not seen, to measure it by.

What reranking gives hangs on the model and on what is asked. Where no trained one can be had, or none knows
what your users ask, the questions of half of the users teach one, and the others' are left to measure it:

    python -m benchmarks.reranker_training --data DIR --out FOLDER [--epochs 4]
    RERANKER_MODEL=FOLDER/model python -m benchmarks.retrieval --data FOLDER/held-out --rerank

It begins with the embedding model's weights. Each memory that answers a question stands against five that
the search ranks high and that do not, and the model learns to tell which it is: the loss is the
cross-entropy over those six (localized contrastive estimation; Gao, Dai and Callan, 2021). What it learns
from is asked of a stack of its own, as `benchmarks.retrieval` does. Two cores take ten minutes and more.
"""

import argparse
import asyncio
import json
import random
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.dataset import UNANSWERABLE, memories, questions, read
from benchmarks.retrieval import Asked, How, ask, caught_up, publish
from benchmarks.stack import own_stack, tell
from pipeline.domain.wording import worded
from pipeline.kafka.connection import KafkaConnection
from pipeline.models.weights import DEFAULT_MODEL, locate
from producers.client import MemoryClient

AGAINST = 5
"""Memories that do not answer, beside each that does."""
HARD = 50
"""They are drawn from so many of the best hits."""
ANSWERS = 6
"""Of a question with many answers so many teach: one question shall not outweigh the others."""
AT_ONCE = 4
TOKENS = 128
LEARNING_RATE = 5e-5
WARMING = 0.1
TELL_EVERY = 20


@dataclass(frozen=True)
class Lesson:
    """A question, a text that answers it, and texts that were ranked high and do not."""

    question: str
    answer: str
    others: Sequence[str]


def split(data: Path, held_out: Path) -> frozenset[str]:
    """The users who teach: every other one. The questions of the rest go to `held_out`, beside all memories."""
    rows: Sequence[dict[str, Any]] = read(data / "queries.jsonl", dict)
    teachers = frozenset(sorted({row["user"] for row in rows})[::2])
    rest = [row for row in rows if row["user"] not in teachers]
    if not rest:
        raise SystemExit("All questions are one user's: nothing would be left to measure by.")
    held_out.mkdir(parents=True, exist_ok=True)
    shutil.copy(data / "memories.jsonl", held_out)
    lines = (json.dumps(row) + "\n" for row in rest)
    (held_out / "queries.jsonl").write_text("".join(lines), "utf-8")
    return teachers


async def lessons(data: Path, teachers: frozenset[str], folder: Path) -> list[Lesson]:
    """What the running system ranks high for the teachers' questions, and what of it answers."""
    asked = [one for one in questions(data) if one.user in teachers]
    said = [memory for memory in memories(data) if memory.user_id in teachers]
    async with own_stack(folder) as stack, MemoryClient(stack.kafka_bootstrap_servers) as memory:
        await publish(memory, said)
        await caught_up(KafkaConnection(stack.kafka_bootstrap_servers))
        answers = await ask(memory, asked, How())
    drawn = random.Random(0)
    return [lesson for one in answers for lesson in lessons_of(one, drawn)]


def lessons_of(asked: Asked, drawn: random.Random) -> Sequence[Lesson]:
    """None where nobody can answer, nothing of the answer was found, or too little beside it."""
    gold = asked.question.gold
    right = [worded(hit) for hit in asked.hits if hit.memory_id in gold]
    wrong = [worded(hit) for hit in asked.hits[:HARD] if hit.memory_id not in gold]
    if asked.question.category == UNANSWERABLE or len(wrong) < AGAINST:
        return ()
    answers = drawn.sample(right, min(ANSWERS, len(right)))
    return [Lesson(asked.question.text, answer, wrong) for answer in answers]


def train(taught: Sequence[Lesson], epochs: float, out: Path) -> None:
    """Writes the model to `out`. The same lessons give the same model, on the same machine."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    base = locate(DEFAULT_MODEL).place
    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    # Half of the weights, which some thousand texts would teach little.
    model.bert.embeddings.requires_grad_(False)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=LEARNING_RATE)
    steps = max(1, round(len(taught) * epochs / AT_ONCE))
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    model.train()
    for step, batch in zip(range(steps), _batches(taught), strict=False):
        loss = _loss(model, _tokens(tokenizer, batch))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rate.step()
        if step % TELL_EVERY == 0:
            tell(f"step {step} of {steps}, loss {loss.item():.2f}")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def _rate(step: int, steps: int) -> float:
    """Of the learning rate: up over the first tenth of the steps, then down to nothing."""
    warm = steps * WARMING
    return (step + 1) / warm if step < warm else (steps - step) / (steps - warm)


def _batches(taught: Sequence[Lesson]) -> Iterator[Sequence[tuple[str, str]]]:
    """Pairs to be read, for AT_ONCE lessons: an answer, then what stands against it. Without end."""
    drawn = random.Random(0)
    while True:
        order = drawn.sample(taught, len(taught))
        for start in range(0, len(order), AT_ONCE):
            yield [
                (lesson.question, text)
                for lesson in order[start : start + AT_ONCE]
                for text in (lesson.answer, *drawn.sample(lesson.others, AGAINST))
            ]


def _tokens(tokenizer: Any, batch: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    asked, texts = map(list, zip(*batch, strict=True))
    return tokenizer(
        asked,
        texts,
        truncation="longest_first",
        max_length=TOKENS,
        padding=True,
        return_tensors="pt",
    )


def _loss(model: Any, tokens: Mapping[str, Any]) -> Any:
    import torch

    with torch.autocast("cpu", torch.bfloat16):
        given = model(**tokens).logits
    given = given.float().view(-1, 1 + AGAINST)
    return torch.nn.functional.cross_entropy(given, torch.zeros(len(given), dtype=torch.long))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="memories.jsonl and queries.jsonl")
    parser.add_argument(
        "--out", type=Path, required=True, help="for the model and the held-out set"
    )
    parser.add_argument("--epochs", type=float, default=4.0, help="how often each lesson is taught")
    given = parser.parse_args()
    teachers = split(given.data, given.out / "held-out")
    with tempfile.TemporaryDirectory(prefix="hybrid-memory-") as folder:
        taught = asyncio.run(lessons(given.data, teachers, Path(folder)))
    tell(f"{len(taught)} lessons, of the questions of {len(teachers)} users")
    train(taught, given.epochs, given.out / "model")
    print(f"RERANKER_MODEL={given.out / 'model'}")


if __name__ == "__main__":
    main()

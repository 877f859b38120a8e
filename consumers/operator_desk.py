"""memory.operator.asked -> the asker's reply topic: tell what both stores hold, replace the index.

A topic of its own, for access rules tell topics apart and not messages: who may search may not switch the
index, nor learn what there is of everybody. Safe to repeat: a step that is done is done.
"""

from collections.abc import Sequence

from pipeline.errors import Refused
from pipeline.ports import Fingerprint, MemoryRecords, MemoryVectors, Replaceable
from pipeline.stage import Desk
from pipeline.stores.caches import Caches
from schemas.search import (
    Answered,
    Asked,
    CountsAnswered,
    CountsAsked,
    FingerprintsAnswered,
    FingerprintsAsked,
    FingerprintsOfAsked,
    HeldState,
    IndexReplaceAnswered,
    IndexReplaceAsked,
)
from schemas.topics import ASKED, OPERATOR_ASKED


def stage(records: MemoryRecords, vectors: MemoryVectors, caches: Caches | None = None) -> Desk:
    """The operators' desk."""

    async def answer(asked: Asked) -> Answered:
        match asked:
            case CountsAsked():
                return CountsAnswered(
                    question_id=asked.question_id,
                    record=await records.count(),
                    index=await vectors.count(),
                    caches=tuple(caches.states) if caches else (),
                    cache_bytes=caches.held_bytes if caches else 0,
                )
            case FingerprintsAsked():
                return held(asked, await vectors.page(asked.after, asked.limit))
            case FingerprintsOfAsked():
                return held(asked, await vectors.fingerprints_of(asked.keys))
            case IndexReplaceAsked():
                return await replace(asked, vectors)
            case _:
                raise Refused(
                    f"{asked.type} is a question about one user: it is asked on the topic {ASKED.name}, "
                    "below the same prefix."
                )

    return Desk(name="operator_desk", reads=OPERATOR_ASKED, answer=answer)


async def replace(asked: IndexReplaceAsked, vectors: MemoryVectors) -> IndexReplaceAnswered:
    """One step of putting a fresh index in the place of this one."""
    if not isinstance(vectors, Replaceable):
        raise Refused("This index has no owner here: it is switched where it is kept.")
    match asked.step:
        case "adopt":
            await vectors.adopt(asked.name)
        case "switch":
            await vectors.switch(asked.name)
        case "abandon":
            await vectors.abandon()
    return IndexReplaceAnswered(question_id=asked.question_id)


def held(asked: Asked, told: Sequence[Fingerprint]) -> FingerprintsAnswered:
    """What the index holds, for whoever compares the stores."""
    return FingerprintsAnswered(
        question_id=asked.question_id,
        states=tuple(
            HeldState.model_construct(
                key=each.key,
                precedence=each.known.stamp.precedence,
                tie=each.known.stamp.tie,
                forgotten=each.known.forgotten,
                watermark=each.watermark,
                content_hash=each.content_hash,
                life=each.life,
            )
            for each in told
        ),
    )

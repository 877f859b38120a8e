"""The index's fingerprints, asked over Kafka: an Edge directory has one owner, which answers for it."""

from collections.abc import Sequence
from uuid import UUID

from pipeline.domain.versions import Known, Stamp
from pipeline.errors import Unavailable
from pipeline.kafka.asking import Asking
from pipeline.ports import Fingerprint
from schemas.search import (
    MAX_FINGERPRINTS,
    Answered,
    FingerprintsAnswered,
    FingerprintsAsked,
    FingerprintsOfAsked,
    HeldState,
)

TIMEOUT_S = 30.0


class IndexOverKafka:
    """Fingerprints of the index that the operator desk asks."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    async def page(self, after: UUID | None, limit: int) -> Sequence[Fingerprint]:
        answered = await self._asking.ask(
            lambda envelope: FingerprintsAsked(**envelope.fields(), after=after, limit=limit),
            timeout_s=TIMEOUT_S,
        )
        return _told(answered)

    async def fingerprints_of(self, keys: Sequence[UUID]) -> Sequence[Fingerprint]:
        told: list[Fingerprint] = []
        for begin in range(0, len(keys), MAX_FINGERPRINTS):
            some = tuple(keys[begin : begin + MAX_FINGERPRINTS])
            answered = await self._asking.ask(
                lambda envelope, some=some: FingerprintsOfAsked(**envelope.fields(), keys=some),
                timeout_s=TIMEOUT_S,
            )
            told += _told(answered)
        return told


def _told(answered: Answered) -> Sequence[Fingerprint]:
    if not isinstance(answered, FingerprintsAnswered):
        raise Unavailable("The operator desk answers another question: is it of another version?")
    return [_fingerprint(state) for state in answered.states]


def _fingerprint(state: HeldState) -> Fingerprint:
    known = Known(Stamp(state.precedence, state.tie), state.forgotten)
    return Fingerprint(state.key, known, state.content_hash, state.watermark, state.life)

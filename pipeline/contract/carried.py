"""Which topic carries which messages."""

from collections.abc import Mapping, Sequence
from typing import get_args

from schemas.events import (
    Classified,
    Enriched,
    Lived,
    MemoryTiered,
    Message,
    Published,
    Settled,
    Stored,
)
from schemas.mem0 import Mem0CycleEnded, Mem0Seen
from schemas.search import Answered, OperatorAsked, UserAsked
from schemas.topics import (
    ANSWERED,
    ASKED,
    CLASSIFIED,
    DEAD,
    ENRICHED,
    EVENTS,
    MEM0_CYCLES,
    MEM0_SEEN,
    OPERATOR_ASKED,
    RECALLED,
    STORED,
    TIERED,
    Topic,
)

CARRIED: Mapping[Topic, Sequence[type[Message]]] = {
    EVENTS: get_args(Published),
    CLASSIFIED: get_args(Classified),
    ENRICHED: get_args(Enriched),
    STORED: get_args(Stored),
    ASKED: get_args(UserAsked),
    OPERATOR_ASKED: get_args(OperatorAsked),
    ANSWERED: get_args(Answered),
    DEAD: get_args(Settled),
    RECALLED: get_args(Lived),
    TIERED: (MemoryTiered,),
    MEM0_SEEN: (Mem0Seen,),
    MEM0_CYCLES: (Mem0CycleEnded,),
}
"""The messages of each topic; among the dead letters anything may stand beside them."""

MESSAGES = tuple(dict.fromkeys(kind for kinds in CARRIED.values() for kind in kinds))

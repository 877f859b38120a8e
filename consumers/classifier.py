"""memory.events -> memory.classified: say what each memory is about.

Reads the words alone, so it keeps up with any publisher.
Safe to repeat: the same text is about the same.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict

from pipeline.ports import Classifier
from pipeline.stage import Stage
from schemas.events import PUBLISHED, Classified, MemoryClassified, MemoryState, Published
from schemas.topics import CLASSIFIED, EVENTS


def stage(classifier: Classifier) -> Stage:
    """The classifier stage."""

    async def classify(events: Sequence[Published]) -> Sequence[Classified]:
        states = [event for event in events if isinstance(event, MemoryState)]
        texts = [state.text for state in states]
        # A batch of long texts takes seconds: heartbeats go on meanwhile.
        found = iter(await asyncio.to_thread(classifier.classify, texts))
        return [
            event.becomes(MemoryClassified, asdict(next(found)))
            if isinstance(event, MemoryState)
            else event
            for event in events
        ]

    return Stage(
        name="classifier",
        reads=EVENTS,
        writes=CLASSIFIED,
        decode=PUBLISHED.validate_json,
        react=classify,
        max_records=500,
    )

"""Archives what was never important, has faded, and was not used for long."""

from datetime import timedelta

from pipeline.domain.pruning import Rule, may_go
from pipeline.tidying.looking import TEXT_CHARS, Tidied, Tools, archived

_DAY = timedelta(days=1)


async def prune(tools: Tools, tidied: Tidied, whose: str | None, rule: Rule) -> None:
    """Archives by the rule the memories of a user, with None of everybody."""
    async for page in tools.pages(tidied, whose):
        going = [(each, worth) for each in page if may_go(worth := tools.worth(each), rule)]
        await tools.publish(
            [
                archived(
                    each.user_id, each.memory_id, each.version, batch=tidied.batch, reason="pruned"
                )
                for each, _ in going
            ]
        )
        for each, worth in going:
            tidied.add(
                "archived",
                user=each.user_id,
                memory_id=each.memory_id,
                text=each.text[:TEXT_CHARS],
                importance=round(worth.importance, 2),
                strength=round(worth.strength, 2),
                unused_days=worth.unused // _DAY,
            )

"""The last forgetting of a memory is found at once, however often it was forgotten.

Who remembers it anew, and who forgets it once more, looks for it in every batch.
"""

from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    op.execute(
        "create index memory_states_forgotten on memory_states (key, precedence, tie) where forgotten"
    )


def downgrade() -> None:
    op.execute("drop index memory_states_forgotten")

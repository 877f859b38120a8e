"""Who of a user was told of a text as said before, in whatever conversation.

Found by a hash of the user and the text: a text is short for many and long for some, and "yes" was said before
by everybody.
"""

from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.execute(
        "create function told_of(user_id text, preceding jsonb) returns bigint[] "
        "language sql immutable strict parallel safe as $$ "
        "select array(select hashtextextended(user_id || E'\\n' || (said ->> 'text'), 0) "
        "from jsonb_array_elements(preceding) as said) $$"
    )
    # No list of what is yet to be sorted in: who forgets would read it through each time.
    op.execute(
        "create index memories_told on memories using gin (told_of(user_id, preceding)) "
        "with (fastupdate = off) where preceding is not null"
    )
    op.execute("drop index memories_with_preceding")


def downgrade() -> None:
    op.execute(
        "create index memories_with_preceding on memories (user_id, coalesce(run_id, '')) "
        "where preceding is not null"
    )
    op.execute("drop index memories_told")
    op.execute("drop function told_of")

"""A user is erased page by page: up to which version all of it is done."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.execute("alter table forgotten_users add column erased_until bigint not null default 0")
    # Until now a user was forgotten and erased in one step.
    op.execute("update forgotten_users set erased_until = version")


def downgrade() -> None:
    op.execute("alter table forgotten_users drop column erased_until")

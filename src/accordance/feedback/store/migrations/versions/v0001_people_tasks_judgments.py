"""People, tasks and judgments, append-only."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def _table(name: str, *columns: Any) -> None:
    op.create_table(
        name,
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("said", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("supersedes", sa.Text, nullable=True),
        *columns,
        sa.PrimaryKeyConstraint("number", name=f"pk_{name}"),
        sa.UniqueConstraint("key", name=f"uq_{name}_key"),
        sa.UniqueConstraint("supersedes", name=f"uq_{name}_supersedes"),
        sa.ForeignKeyConstraint(["supersedes"], [f"{name}.key"], name=f"fk_{name}_supersedes"),
    )


def upgrade() -> None:
    """Make the three tables."""
    _table(
        "people",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("group", sa.Text, nullable=True),
        sa.Column("profile", sa.Text, nullable=False),
    )
    op.create_index("ix_people_name", "people", ["name"])
    _table(
        "tasks",
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("responses", sa.Integer, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("ix_tasks_project", "tasks", ["project"])
    _table(
        "judgments",
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("annotator", sa.Text, nullable=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("judgment", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["task"], ["tasks.key"], name="fk_judgments_task"),
    )
    op.create_index("ix_judgments_task", "judgments", ["task"])
    op.create_index("ix_judgments_annotator", "judgments", ["annotator"])


def downgrade() -> None:
    """Drop them, with all that was said."""
    for name in ("judgments", "tasks", "people"):
        op.drop_table(name)

"""the tables of the first release"""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0100"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    bind = op.get_bind()
    op.create_table(
        "audience_day",
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("active", sa.Integer(), nullable=False),
        sa.Column("counted_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_audience_day")),
    )
    op.create_table(
        "audit_entry",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("actor_id", _ID, nullable=True),
        sa.Column("actor", sa.String(320), nullable=False),
        sa.Column("ip", sa.String(45), nullable=False),
        sa.Column("action", sa.String(60), nullable=False),
        sa.Column("subject", sa.String(320), nullable=False),
        sa.Column(
            "detail",
            _JSON,
            nullable=False,
        ),
        sa.Column("chain", sa.LargeBinary(length=32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entry")),
    )
    op.create_index(op.f("ix_audit_entry_at"), "audit_entry", ["at"], unique=False)
    op.create_table(
        "console_user",
        sa.Column("id", _ID, nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("identity", sa.String(320), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("role", sa.String(10), nullable=False),
        sa.Column("password", sa.String(200), nullable=False),
        sa.Column("stamp", sa.BigInteger(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("signed_in_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "role = 'viewer' OR role = 'editor' OR role = 'approver' OR role = 'owner'",
            name=op.f("ck_console_user_role"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_console_user")),
        sa.UniqueConstraint("identity", name=op.f("uq_console_user_identity")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "delivery",
        sa.Column("issue_id", _ID, nullable=False),
        sa.Column("subscriber_id", _ID, nullable=False),
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.String(300), nullable=True),
        sa.CheckConstraint(
            "state = 'planned' OR state = 'accepted' OR state = 'dropped' OR state = 'delivered' OR state = 'bounced' OR state = 'complained' OR state = 'skipped' OR state = 'rejected'",
            name=op.f("ck_delivery_state"),
        ),
        sa.PrimaryKeyConstraint("issue_id", "subscriber_id", name=op.f("pk_delivery")),
        postgresql_with={"fillfactor": 50},
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_delivery_send_id_batch"), "delivery", ["send_id", "batch"], unique=False
    )
    # After the other: where both would do, SQLite takes the one that was created last.
    op.create_index(
        "ix_delivery_apart",
        "delivery",
        ["send_id", "batch", "subscriber_id"],
        unique=False,
        sqlite_where=sa.text("reason IS NOT NULL"),
        postgresql_where=sa.text("reason IS NOT NULL"),
    )
    op.create_table(
        "departure_log",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("host", sa.String(100), nullable=False),
        sa.Column("folder", sa.String(1000), nullable=False),
        sa.Column("state", sa.String(20), nullable=False),
        sa.Column("detail", sa.String(300), nullable=False),
        sa.Column(
            "read",
            _JSON,
            nullable=False,
        ),
        sa.Column("compared", sa.Integer(), nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "state = 'current' OR state = 'waiting' OR state = 'missing' OR state = 'unreadable' OR state = 'foreign' OR state = 'short' OR state = 'unnamed' OR state = 'set aside'",
            name=op.f("ck_departure_log_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_departure_log")),
    )
    op.create_table(
        "event",
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("key", sa.LargeBinary(length=16), nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("received_at", _MOMENT, nullable=False),
        sa.Column("issue_id", _ID, nullable=True),
        sa.Column("send_id", _ID, nullable=True),
        sa.Column("batch", sa.Integer(), nullable=True),
        sa.Column("subscriber_id", _ID, nullable=True),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("link", sa.String(500), nullable=False),
        sa.Column("by_machine", sa.Boolean(), nullable=False),
        sa.Column("raw", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("at", "key", name=op.f("pk_event")),
        postgresql_partition_by="RANGE (at)",
    )
    op.create_index(op.f("ix_event_send_id_kind"), "event", ["send_id", "kind"], unique=False)
    op.create_index(
        op.f("ix_event_subscriber_id_send_id"), "event", ["subscriber_id", "send_id"], unique=False
    )
    op.create_table(
        "event_horizon",
        sa.Column("name", sa.String(10), nullable=False),
        sa.Column("before", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_event_horizon")),
    )
    op.create_table(
        "forgotten_send",
        sa.Column("id", _ID, nullable=False),
        sa.Column("number", _ID, nullable=False),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.Column("slug", sa.String(100), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("schedule", sa.String(200), nullable=False),
        sa.Column("due_at", _MOMENT, nullable=True),
        sa.Column("found_at", _MOMENT, nullable=False),
        sa.Column("over_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_forgotten_send")),
        sa.UniqueConstraint("number", "made_at", name=op.f("uq_forgotten_send_number_made_at")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_forgotten_send_content"), "forgotten_send", ["content"], unique=False)
    op.create_index(op.f("ix_forgotten_send_slug"), "forgotten_send", ["slug"], unique=False)
    op.create_table(
        "identity",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("value", sa.String(200), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_identity")),
    )
    op.create_table(
        "import_job",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("size", _ID, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column(
            "options",
            _JSON,
            nullable=False,
        ),
        sa.Column(
            "found",
            _JSON,
            nullable=False,
        ),
        sa.Column(
            "report",
            _JSON,
            nullable=False,
        ),
        sa.Column("problem", sa.String(1000), nullable=False),
        sa.Column("hint", sa.String(1000), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Integer(), nullable=False),
        sa.Column("made_by", sa.String(320), nullable=False),
        sa.Column("made_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.Column("worker", sa.String(100), nullable=False),
        sa.Column("alive_until", _MOMENT, nullable=True),
        sa.Column("interruptions", sa.Integer(), nullable=False),
        sa.Column("stop_asked", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "state = 'uploaded' OR state = 'checking' OR state = 'checked' OR state = 'queued' OR state = 'running' OR state = 'done' OR state = 'failed' OR state = 'stopped'",
            name=op.f("ck_import_job_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_import_job")),
    )
    op.create_index(
        "ix_import_job_open",
        "import_job",
        ["id"],
        unique=False,
        sqlite_where=sa.text("state NOT IN ('done', 'failed', 'stopped')"),
        postgresql_where=sa.text("state NOT IN ('done', 'failed', 'stopped')"),
    )
    op.create_table(
        "issue",
        sa.Column("id", _ID, nullable=False),
        sa.Column("slug", sa.String(100), nullable=False),
        sa.Column("title", sa.String(300), nullable=False),
        sa.Column("series", sa.String(100), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("archive", sa.Boolean(), nullable=False),
        sa.Column("archive_set", sa.Boolean(), nullable=False),
        sa.Column("published_at", _MOMENT, nullable=True),
        sa.Column("published_send", _ID, nullable=True),
        sa.CheckConstraint(
            "state = 'draft' OR state = 'review' OR state = 'approved'", name=op.f("ck_issue_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_issue")),
        sa.UniqueConstraint("slug", name=op.f("uq_issue_slug")),
    )
    op.create_index(
        op.f("ix_issue_series_state_since"), "issue", ["series", "state", "since"], unique=False
    )
    op.create_table(
        "list_removal",
        sa.Column("address_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("since", _MOMENT, nullable=True),
        sa.Column("own_wish", sa.Boolean(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("next_at", _MOMENT, nullable=False),
        sa.Column("done_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("address_hash", name=op.f("pk_list_removal")),
    )
    op.create_index(op.f("ix_list_removal_done_at"), "list_removal", ["done_at"], unique=False)
    op.create_index(
        "ix_list_removal_due",
        "list_removal",
        ["next_at"],
        unique=False,
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_table(
        "operator_message",
        sa.Column("id", _ID, nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("detail", sa.String(2000), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("emailed_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operator_message")),
        sa.UniqueConstraint("key", name=op.f("uq_operator_message_key")),
    )
    op.create_index(
        "ix_operator_message_waiting",
        "operator_message",
        ["id"],
        unique=False,
        sqlite_where=sa.text("emailed_at IS NULL"),
        postgresql_where=sa.text("emailed_at IS NULL"),
    )
    op.create_table(
        "outbox_email",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(40), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("subject", sa.String(1000), nullable=False),
        sa.Column("html", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("lease_until", _MOMENT, nullable=True),
        sa.Column("settled_at", _MOMENT, nullable=True),
        sa.Column("message_id", sa.String(100), nullable=True),
        sa.Column("detail", sa.String(1000), nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("outcome_reason", sa.String(1000), nullable=False),
        sa.CheckConstraint(
            "state = 'pending' OR state = 'claimed' OR state = 'in_flight' OR state = 'accepted' OR state = 'rejected' OR state = 'uncertain' OR state = 'skipped'",
            name=op.f("ck_outbox_email_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox_email")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_outbox_email_due",
        "outbox_email",
        ["not_before", "id"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(op.f("ix_outbox_email_email"), "outbox_email", ["email"], unique=False)
    op.create_table(
        "provider_backoff",
        sa.Column("name", sa.String(40), nullable=False),
        sa.Column("until", _MOMENT, nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("probes", sa.Integer(), nullable=False),
        sa.Column("passed", sa.Boolean(), nullable=False),
        sa.Column("probe_send", _ID, nullable=True),
        sa.Column("probe_batch", sa.Integer(), nullable=True),
        sa.Column("probe_attempt", sa.Integer(), nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_provider_backoff")),
    )
    op.create_table(
        "rate_limit",
        sa.Column("key", sa.LargeBinary(length=16), nullable=False),
        sa.Column("window_end", _MOMENT, nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", "window_end", name=op.f("pk_rate_limit")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_rate_limit_window_end"), "rate_limit", ["window_end"], unique=False)
    op.create_table(
        "recipient_counter",
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("subscriber_id", _ID, nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("domain", sa.String(255), nullable=False),
        sa.Column("link", sa.String(500), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "send_id", "subscriber_id", "what", "domain", "link", name=op.f("pk_recipient_counter")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reconciliation",
        sa.Column("id", _ID, nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.Column("since", _MOMENT, nullable=True),
        sa.Column(
            "report",
            _JSON,
            nullable=False,
        ),
        sa.Column("error", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation")),
    )
    op.create_table(
        "schedule",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("series", sa.String(100), nullable=False),
        sa.Column("rule", sa.String(100), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("own_clock", sa.Boolean(), nullable=False),
        sa.Column(
            "skips",
            _JSON,
            nullable=False,
        ),
        sa.Column(
            "timetable",
            _JSON,
            nullable=False,
        ),
        sa.Column("track_clicks", sa.Boolean(), nullable=True),
        sa.Column("track_opens", sa.Boolean(), nullable=True),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("next_at", _MOMENT, nullable=True),
        sa.Column("next_wall", sa.DateTime(), nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "state = 'active' OR state = 'paused' OR state = 'ended'",
            name=op.f("ck_schedule_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_schedule")),
        sa.UniqueConstraint("name", name=op.f("uq_schedule_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "segment",
        sa.Column("id", _ID, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("expression", sa.String(4000), nullable=False),
        sa.Column("description", sa.String(1000), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("people", sa.Integer(), nullable=True),
        sa.Column("mailable", sa.Integer(), nullable=True),
        sa.Column("counted_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_segment")),
        sa.UniqueConstraint("name", name=op.f("uq_segment_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "send_counter",
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("send_id", "what", name=op.f("pk_send_counter")),
    )
    op.create_table(
        "soft_bounce",
        sa.Column("address_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("key", sa.LargeBinary(length=16), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("address_hash", "key", name=op.f("pk_soft_bounce")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "status_count",
        sa.Column("what", sa.String(20), nullable=False),
        sa.Column("people", sa.Integer(), nullable=False),
        sa.Column("counted_at", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("what", name=op.f("pk_status_count")),
    )
    op.create_table(
        "subscriber",
        sa.Column("id", _ID, nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("address_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column(
            "attributes",
            _JSON,
            nullable=False,
        ),
        sa.Column("language", sa.String(35), nullable=True),
        sa.Column("timezone", sa.String(64), nullable=True),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("confirmed_at", _MOMENT, nullable=True),
        sa.Column("paused_until", _MOMENT, nullable=True),
        sa.Column("last_open_at", _MOMENT, nullable=True),
        sa.Column("last_click_at", _MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_subscriber")),
        sa.UniqueConstraint("address_hash", name=op.f("uq_subscriber_address_hash")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "suppression",
        sa.Column("address_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("reason", sa.String(12), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("evidence", sa.String(1000), nullable=False),
        sa.Column("underlying_reason", sa.String(12), nullable=True),
        sa.Column("underlying_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "reason = 'bounced' OR reason = 'unsubscribed' OR reason = 'complained' OR reason = 'manual' OR reason = 'erased'",
            name=op.f("ck_suppression_reason"),
        ),
        sa.PrimaryKeyConstraint("address_hash", name=op.f("pk_suppression")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "topic",
        sa.Column("id", _ID, nullable=False),
        sa.Column("slug", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.String(1000), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_topic")),
        sa.UniqueConstraint("slug", name=op.f("uq_topic_slug")),
    )
    op.create_table(
        "variant_counter",
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("part", sa.String(10), nullable=False),
        sa.Column("value", sa.String(500), nullable=False),
        sa.Column("what", sa.String(40), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint(
            "send_id", "part", "value", "what", name=op.f("pk_variant_counter")
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "worker",
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("started_at", _MOMENT, nullable=False),
        sa.Column("alive_until", _MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_worker")),
    )
    op.create_table(
        "confirmation",
        sa.Column("id", _ID, nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("email", sa.String(320), nullable=False),
        sa.Column("address_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("subscriber_id", _ID, nullable=True),
        sa.Column(
            "asked",
            _JSON,
            nullable=False,
        ),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("done_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "kind = 'signup' OR kind = 'address' OR kind = 'data' OR kind = 'erase'",
            name=op.f("ck_confirmation_kind"),
        ),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["subscriber.id"],
            name=op.f("fk_confirmation_subscriber_id_subscriber"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_confirmation")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_confirmation_address_hash"), "confirmation", ["address_hash"], unique=False
    )
    op.create_index(
        op.f("ix_confirmation_expires_at"), "confirmation", ["expires_at"], unique=False
    )
    op.create_index(
        op.f("ix_confirmation_subscriber_id"), "confirmation", ["subscriber_id"], unique=False
    )
    op.create_table(
        "consent",
        sa.Column("id", _ID, nullable=False),
        sa.Column("subscriber_id", _ID, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("act", sa.String(10), nullable=False),
        sa.Column("source", sa.String(100), nullable=False),
        sa.Column("wording", sa.String(2000), nullable=False),
        sa.Column("ip", sa.String(45), nullable=True),
        sa.Column("user_agent", sa.String(500), nullable=True),
        sa.CheckConstraint(
            "act = 'requested' OR act = 'confirmed' OR act = 'imported' OR act = 'withdrawn'",
            name=op.f("ck_consent_act"),
        ),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["subscriber.id"],
            name=op.f("fk_consent_subscriber_id_subscriber"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_consent")),
    )
    op.create_index(op.f("ix_consent_subscriber_id"), "consent", ["subscriber_id"], unique=False)
    op.create_table(
        "console_factor",
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("pending", sa.String(64), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("since", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["console_user.id"],
            name=op.f("fk_console_factor_user_id_console_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_console_factor")),
    )
    op.create_table(
        "console_recovery_code",
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("code", sa.LargeBinary(length=32), nullable=False),
        sa.Column("used_at", _MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["console_user.id"],
            name=op.f("fk_console_recovery_code_user_id_console_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "code", name=op.f("pk_console_recovery_code")),
    )
    op.create_table(
        "console_session",
        sa.Column("id", _ID, nullable=False),
        sa.Column("token", sa.LargeBinary(length=32), nullable=False),
        sa.Column("user_id", _ID, nullable=False),
        sa.Column("stage", sa.String(10), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("seen_at", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("ip", sa.String(45), nullable=False),
        sa.Column("browser", sa.String(200), nullable=False),
        sa.CheckConstraint(
            "stage = 'code' OR stage = 'enrol' OR stage = 'full'",
            name=op.f("ck_console_session_stage"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["console_user.id"],
            name=op.f("fk_console_session_user_id_console_user"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_console_session")),
        sa.UniqueConstraint("token", name=op.f("uq_console_session_token")),
    )
    op.create_index(
        op.f("ix_console_session_expires_at"), "console_session", ["expires_at"], unique=False
    )
    op.create_index(
        op.f("ix_console_session_user_id"), "console_session", ["user_id"], unique=False
    )
    op.create_table(
        "dropped_topic",
        sa.Column("subscriber_id", _ID, nullable=False),
        sa.Column("topic_id", _ID, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["subscriber.id"],
            name=op.f("fk_dropped_topic_subscriber_id_subscriber"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["topic_id"],
            ["topic.id"],
            name=op.f("fk_dropped_topic_topic_id_topic"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("subscriber_id", "topic_id", name=op.f("pk_dropped_topic")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_dropped_topic_topic_id"), "dropped_topic", ["topic_id"], unique=False)
    op.create_table(
        "forgotten_recipient",
        sa.Column("forgotten_id", _ID, nullable=False),
        sa.Column("address_prefix", sa.LargeBinary(length=8), nullable=False),
        sa.Column("batch", sa.Integer(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["forgotten_id"],
            ["forgotten_send.id"],
            name=op.f("fk_forgotten_recipient_forgotten_id_forgotten_send"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint(
            "forgotten_id", "address_prefix", name=op.f("pk_forgotten_recipient")
        ),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_forgotten_recipient_forgotten_id_batch"),
        "forgotten_recipient",
        ["forgotten_id", "batch"],
        unique=False,
    )
    op.create_table(
        "former_address",
        sa.Column("address_hash", sa.LargeBinary(length=16), nullable=False),
        sa.Column("subscriber_id", _ID, nullable=True),
        sa.Column("at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["subscriber.id"],
            name=op.f("fk_former_address_subscriber_id_subscriber"),
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("address_hash", name=op.f("pk_former_address")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_former_address_subscriber_id"), "former_address", ["subscriber_id"], unique=False
    )
    op.create_table(
        "revision",
        sa.Column("id", _ID, nullable=False),
        sa.Column("issue_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("content", sa.String(64), nullable=False),
        sa.Column("title", sa.String(300), nullable=False),
        sa.Column("series", sa.String(100), nullable=False),
        sa.Column("description", sa.String(300), nullable=False),
        sa.Column("author", sa.String(320), nullable=False),
        sa.Column("author_id", _ID, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["issue_id"], ["issue.id"], name=op.f("fk_revision_issue_id_issue")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revision")),
        sa.UniqueConstraint("issue_id", "number", name=op.f("uq_revision_issue_id_number")),
    )
    op.create_index(op.f("ix_revision_content"), "revision", ["content"], unique=False)
    op.create_table(
        "schedule_segment",
        sa.Column("schedule_id", _ID, nullable=False),
        sa.Column("segment_id", _ID, nullable=False),
        sa.Column("excluded", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedule.id"],
            name=op.f("fk_schedule_segment_schedule_id_schedule"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["segment_id"], ["segment.id"], name=op.f("fk_schedule_segment_segment_id_segment")
        ),
        sa.PrimaryKeyConstraint("schedule_id", "segment_id", name=op.f("pk_schedule_segment")),
    )
    op.create_index(
        op.f("ix_schedule_segment_segment_id"), "schedule_segment", ["segment_id"], unique=False
    )
    op.create_table(
        "subscription",
        sa.Column("subscriber_id", _ID, nullable=False),
        sa.Column("topic_id", _ID, nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["subscriber_id"],
            ["subscriber.id"],
            name=op.f("fk_subscription_subscriber_id_subscriber"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["topic_id"],
            ["topic.id"],
            name=op.f("fk_subscription_topic_id_topic"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("subscriber_id", "topic_id", name=op.f("pk_subscription")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_subscription_topic_id_subscriber_id"),
        "subscription",
        ["topic_id", "subscriber_id"],
        unique=False,
    )
    op.create_table(
        "review",
        sa.Column("id", _ID, nullable=False),
        sa.Column("issue_id", _ID, nullable=False),
        sa.Column("revision_id", _ID, nullable=False),
        sa.Column("step", sa.String(10), nullable=False),
        sa.Column("actor", sa.String(320), nullable=False),
        sa.Column("user_id", _ID, nullable=True),
        sa.Column("note", sa.String(2000), nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.CheckConstraint(
            "step = 'requested' OR step = 'approved' OR step = 'returned'",
            name=op.f("ck_review_step"),
        ),
        sa.ForeignKeyConstraint(["issue_id"], ["issue.id"], name=op.f("fk_review_issue_id_issue")),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_review_revision_id_revision")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review")),
    )
    op.create_index(op.f("ix_review_issue_id"), "review", ["issue_id"], unique=False)
    op.create_table(
        "send",
        sa.Column("id", _ID, nullable=False),
        sa.Column("issue_id", _ID, nullable=False),
        sa.Column("revision_id", _ID, nullable=False),
        sa.Column(
            "segments",
            _JSON,
            nullable=False,
        ),
        sa.Column(
            "excluded",
            _JSON,
            nullable=False,
        ),
        sa.Column(
            "topics",
            _JSON,
            nullable=False,
        ),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("paused_by", sa.String(20), nullable=True),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("scheduled_for", _MOMENT, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("started_at", _MOMENT, nullable=True),
        sa.Column("finished_at", _MOMENT, nullable=True),
        sa.Column("paused_at", _MOMENT, nullable=True),
        sa.Column(
            "timetable",
            _JSON,
            nullable=False,
        ),
        sa.Column(
            "test",
            _JSON,
            nullable=False,
        ),
        sa.Column("winner", sa.String(20), nullable=True),
        sa.Column(
            "breaker_baseline",
            _JSON,
            nullable=False,
        ),
        sa.Column("track_clicks", sa.Boolean(), nullable=False),
        sa.Column("track_opens", sa.Boolean(), nullable=False),
        sa.Column("planned", sa.Integer(), nullable=False),
        sa.Column("transferred", sa.Integer(), nullable=False),
        sa.Column("accepted_count", sa.Integer(), nullable=True),
        sa.Column(
            "excluded_counts",
            _JSON,
            nullable=False,
        ),
        sa.Column("summarized_at", _MOMENT, nullable=True),
        sa.Column(
            "final_counts",
            _JSON,
            nullable=False,
        ),
        sa.Column(
            "occasion",
            _JSON,
            nullable=False,
        ),
        sa.Column("intervened_at", _MOMENT, nullable=True),
        sa.CheckConstraint(
            "state = 'draft' OR state = 'approved' OR state = 'scheduled' OR state = 'planning' OR state = 'sending' OR state = 'paused' OR state = 'sent' OR state = 'cancelled'",
            name=op.f("ck_send_state"),
        ),
        sa.CheckConstraint(
            "paused_by = 'operator' OR paused_by = 'circuit_breaker' OR paused_by = 'api_key' OR paused_by = 'permission' OR paused_by = 'provider_host' OR paused_by = 'refused' OR paused_by = 'outage' OR paused_by = 'request' OR paused_by = 'departure_log' OR paused_by = 'late' OR paused_by = 'start' OR paused_by = 'timetable' OR paused_by = 'winner' OR paused_by = 'restore' OR paused_by = 'defect'",
            name=op.f("ck_send_paused_by"),
        ),
        sa.ForeignKeyConstraint(["issue_id"], ["issue.id"], name=op.f("fk_send_issue_id_issue")),
        sa.ForeignKeyConstraint(
            ["revision_id"], ["revision.id"], name=op.f("fk_send_revision_id_revision")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_send")),
    )
    op.create_index(op.f("ix_send_issue_id"), "send", ["issue_id"], unique=False)
    op.create_table(
        "schedule_run",
        sa.Column("schedule_id", _ID, nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("outcome", sa.String(10), nullable=False),
        sa.Column("reason", sa.String(1000), nullable=False),
        sa.Column("send_id", _ID, nullable=True),
        sa.CheckConstraint(
            "outcome = 'sent' OR outcome = 'nothing' OR outcome = 'skipped' OR outcome = 'missed' OR outcome = 'failed'",
            name=op.f("ck_schedule_run_outcome"),
        ),
        sa.ForeignKeyConstraint(
            ["schedule_id"],
            ["schedule.id"],
            name=op.f("fk_schedule_run_schedule_id_schedule"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["send_id"], ["send.id"], name=op.f("fk_schedule_run_send_id_send")
        ),
        sa.PrimaryKeyConstraint("schedule_id", "due_at", name=op.f("pk_schedule_run")),
    )
    op.create_index(op.f("ix_schedule_run_due_at"), "schedule_run", ["due_at"], unique=False)
    op.create_index(op.f("ix_schedule_run_send_id"), "schedule_run", ["send_id"], unique=False)
    op.create_table(
        "variant",
        sa.Column("id", _ID, nullable=False),
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("issue_id", _ID, nullable=True),
        sa.Column("label", sa.String(20), nullable=False),
        sa.Column("subject", sa.String(1000), nullable=False),
        sa.Column("sender_email", sa.String(320), nullable=False),
        sa.Column("sender_name", sa.String(200), nullable=False),
        sa.Column("reply_to", sa.String(320), nullable=True),
        sa.Column("html", sa.String(), nullable=False),
        sa.Column("text", sa.String(), nullable=False),
        sa.Column(
            "placeholders",
            _JSON,
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["issue_id"], ["issue.id"], name=op.f("fk_variant_issue_id_issue")),
        sa.ForeignKeyConstraint(["send_id"], ["send.id"], name=op.f("fk_variant_send_id_send")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_variant")),
    )
    op.create_index(op.f("ix_variant_send_id"), "variant", ["send_id"], unique=False)
    op.create_table(
        "batch",
        sa.Column("send_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("variant_id", _ID, nullable=False),
        sa.Column("part", sa.String(10), nullable=False),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("not_before", _MOMENT, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(100), nullable=True),
        sa.Column("lease_until", _MOMENT, nullable=True),
        sa.Column("departed_at", _MOMENT, nullable=True),
        sa.Column("settled_at", _MOMENT, nullable=True),
        sa.Column("message_id", sa.String(100), nullable=True),
        sa.Column("detail", sa.String(1000), nullable=False),
        sa.Column("resent", sa.Boolean(), nullable=False),
        sa.CheckConstraint(
            "part = 'whole' OR part = 'sample' OR part = 'rest' OR part = 'winner'",
            name=op.f("ck_batch_part"),
        ),
        sa.CheckConstraint(
            "state = 'pending' OR state = 'claimed' OR state = 'in_flight' OR state = 'accepted' OR state = 'rejected' OR state = 'uncertain' OR state = 'skipped'",
            name=op.f("ck_batch_state"),
        ),
        sa.ForeignKeyConstraint(["send_id"], ["send.id"], name=op.f("fk_batch_send_id_send")),
        sa.ForeignKeyConstraint(
            ["variant_id"], ["variant.id"], name=op.f("fk_batch_variant_id_variant")
        ),
        sa.PrimaryKeyConstraint("send_id", "number", name=op.f("pk_batch")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        "ix_batch_due",
        "batch",
        ["not_before", "send_id", "number"],
        unique=False,
        sqlite_where=sa.text("state = 'pending'"),
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(op.f("ix_batch_send_id_state"), "batch", ["send_id", "state"], unique=False)

    # The database's name is in its first backup, so that a departure log that was begun after the
    # backup is known to be of the same database.
    identity = sa.table(
        "identity",
        sa.column("name"),
        sa.column("value"),
        sa.column("at", sa.DateTime(timezone=True)),
    )
    bind.execute(
        identity.insert().values(name="database", value=secrets.token_hex(16), at=datetime.now(UTC))
    )
    is_postgresql = bind.dialect.name == "postgresql"
    # The same expressions as in subscribers.directory.search, or no search uses these indexes.
    plain = '{} COLLATE "C"' if is_postgresql else "{}"
    for name in ("email", "name"):
        lowered = f"lower({plain.format(name)})"
        op.execute(f"CREATE INDEX ix_subscriber_lower_{name} ON subscriber ({lowered}, id)")
    if is_postgresql:
        _make_partitions()
    for statement in _append_only(is_postgresql=is_postgresql):
        bind.exec_driver_sql(statement)


def _make_partitions() -> None:
    """One table for each month of events, and one for events of any other month."""
    op.execute("CREATE TABLE event_other PARTITION OF event DEFAULT")
    now = datetime.now(UTC)
    month = now.year * 12 + now.month - 1
    for number in range(month, month + 3):
        (year, of_year), (next_year, next_of_year) = divmod(number, 12), divmod(number + 1, 12)
        op.execute(
            f"CREATE TABLE event_{year:04}_{of_year + 1:02} PARTITION OF event FOR VALUES "
            f"FROM ('{year:04}-{of_year + 1:02}-01T00:00Z') "
            f"TO ('{next_year:04}-{next_of_year + 1:02}-01T00:00Z')"
        )


def _append_only(*, is_postgresql: bool) -> Iterator[str]:
    """Triggers that refuse to change or delete an entry of the audit log."""
    if is_postgresql:
        yield (
            "CREATE FUNCTION newsletter_append_only() RETURNS trigger LANGUAGE plpgsql AS $$ "
            "BEGIN RAISE EXCEPTION 'entries of the audit log cannot be changed' "
            "USING ERRCODE = 'check_violation'; END $$"
        )
        yield (
            "CREATE TRIGGER audit_entry_append_only BEFORE UPDATE OR DELETE ON audit_entry "
            "FOR EACH ROW EXECUTE FUNCTION newsletter_append_only()"
        )
        return
    for verb in ("UPDATE", "DELETE"):
        yield (
            f"CREATE TRIGGER audit_entry_append_only_{verb.lower()} BEFORE {verb} ON audit_entry "
            "BEGIN SELECT RAISE(ABORT, 'entries of the audit log cannot be changed'); END"
        )

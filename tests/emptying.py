"""The same PostgreSQL database for the next test: as long as its shape stayed, it is emptied."""

from sqlalchemy import URL, Engine, create_engine, text

_SHAPE = text("""
    SELECT md5(string_agg(one, ' ' ORDER BY one)) FROM (
        SELECT concat_ws(' ', relnamespace::regnamespace, relname, relkind, attname, atttypid)
        FROM pg_class LEFT JOIN pg_attribute ON attrelid = pg_class.oid AND attnum > 0
        WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
        UNION ALL SELECT concat_ws(' ', tgrelid::regclass, pg_get_triggerdef(oid))
        FROM pg_trigger WHERE NOT tgisinternal
        UNION ALL SELECT concat_ws(' ', conrelid::regclass, pg_get_constraintdef(oid))
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        UNION ALL SELECT prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace
        UNION ALL SELECT version_num FROM alembic_version
    ) AS shape (one)
""")
_EMPTY = text("""
    DO $$ DECLARE each text; BEGIN
        -- Rows that a trigger guards go, too.
        SET LOCAL session_replication_role = replica;
        FOR each IN SELECT oid::regclass FROM pg_class WHERE relkind = 'r'
            AND relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
        LOOP EXECUTE 'DELETE FROM ' || each; END LOOP;
        PERFORM setval(oid::regclass, 1, false) FROM pg_class
        WHERE relkind = 'S' AND relnamespace = 'public'::regnamespace;
    END $$
""")


def shape_of(url: URL) -> str:
    """What the tables of a database look like, whatever rows stand in them."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            return str(connection.scalar(_SHAPE))
    finally:
        engine.dispose()


def emptied(admin: Engine, url: URL, shape: str) -> bool:
    """Take all rows out of a database; False when it is of another shape by now, or gone."""
    with admin.connect() as connection:
        # Whoever is still connected would hold rows.
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = :it"
            ),
            {"it": url.database},
        )
        known = text("SELECT 1 FROM pg_database WHERE datname = :it")
        if not connection.scalar(known, {"it": url.database}):
            return False
    if shape_of(url) != shape:
        return False
    engine = create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(_EMPTY)
    finally:
        engine.dispose()
    return True

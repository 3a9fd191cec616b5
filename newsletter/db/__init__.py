"""The database: engine, ORM base, column types, bulk rows, backups."""

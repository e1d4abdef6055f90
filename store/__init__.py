"""Where facts live: SQLAlchemy Core tables, migrations, SQLite and PostgreSQL."""

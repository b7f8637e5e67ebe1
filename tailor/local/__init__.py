"""The embedded stack: broker, object store, PostgreSQL and the services, as processes of one state directory."""

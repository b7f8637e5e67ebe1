"""The embedded stack: broker, object store, PostgreSQL and the services, as processes under one state directory."""

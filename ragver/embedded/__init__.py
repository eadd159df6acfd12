"""What runs inside the data directory when no server is configured: its lock, its secret, its PostgreSQL."""

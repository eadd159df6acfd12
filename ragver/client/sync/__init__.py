"""The synchronous client, derived from the asynchronous one (``ragver.client.derive``)."""

"""fanout: an asyncio push-delivery engine. Tell Alice, and every device she has gets it."""

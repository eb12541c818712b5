"""aiotrain: an asyncio-native reinforcement-learning trainer."""

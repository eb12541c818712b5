"""The official protocol of the challenge."""

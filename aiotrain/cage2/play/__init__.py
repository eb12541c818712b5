"""Compiled play: whole episodes of the engine with the policy, written into the ring."""

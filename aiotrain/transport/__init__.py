"""Shared memory between the main process and its workers: segments, the ring of episodes, the policy's weights."""

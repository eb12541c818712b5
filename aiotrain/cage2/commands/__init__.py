"""The commands that a run on CAGE 2 has in place of the general ones: evaluate, replay and export."""

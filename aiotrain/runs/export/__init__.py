"""The policy of a run as files that need neither torch nor aiotrain."""

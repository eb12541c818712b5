"""CAGE 2 in the console: the search, tables of scores, and episodes to watch."""

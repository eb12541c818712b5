"""A domain of your own, to be copied: an environment, its settings, and what announces them (../pyproject.toml)."""

"""Playing an episode: the environment's factory and spaces, policies that act, and players."""

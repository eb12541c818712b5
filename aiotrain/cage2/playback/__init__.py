"""An episode as a person watches it."""

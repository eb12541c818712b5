"""Search over workflows."""

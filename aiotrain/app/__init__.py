"""The program: commands and flags, signals and exit codes, the console."""

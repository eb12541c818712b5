"""The environment on csle-cyborg and on the compiled engine."""

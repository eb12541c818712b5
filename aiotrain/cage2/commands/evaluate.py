"""To be replaced: the general command, which still has the flags of CAGE 2."""

from aiotrain.app.evaluate_command import evaluate as evaluate

"""To be replaced: the general command, which still has the flags of CAGE 2."""

from aiotrain.app.replay_command import replay as replay

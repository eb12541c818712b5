"""To be replaced: the general command, which still has the flags of CAGE 2."""

from aiotrain.app.export_command import export as export

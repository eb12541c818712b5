"""A domain that another distribution brings: a corridor to walk along. It uses every seam of aiotrain.Domain."""

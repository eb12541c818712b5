"""Who plays, and where: the protocol of collectors, the six collectors, and worker processes."""

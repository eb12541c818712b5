"""Imported first by the forkserver: Ctrl-C reaches the whole process group, but the main process alone decides.

The forkserver hands on to its children how it took SIGINT when it began to serve. It is started with SIGINT blocked, so
that a Ctrl-C while it imports ends nothing either.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

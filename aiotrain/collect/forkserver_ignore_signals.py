"""Imported first by the forkserver: what ends a terminal or comes from it is for the main process alone to decide.

Ctrl-C (SIGINT) and a closed terminal (SIGHUP) reach the whole process group.

The forkserver hands on to its children how it took these signals when it began to serve. It is started with SIGINT
blocked, so that a Ctrl-C while it imports ends nothing either.
"""

import signal

signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

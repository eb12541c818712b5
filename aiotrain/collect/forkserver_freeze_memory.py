"""Imported last by the forkserver: what it holds by now stays in pages that all workers share.

Python's garbage collector marks what it visits, and a page that is marked becomes a worker's own.
"""

import gc

gc.collect()
gc.freeze()

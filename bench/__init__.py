"""Measurements of aiotrain: a script for each question. ``python -m bench`` lists them.

A script is a file in this folder. Its head says what ``python -m bench`` lists and what the tests run:

- the first line of the docstring: what it measures;
- ``TAKES``: how long it takes as it is called by default, on two cores;
- ``SMALLEST``: the flags with which it takes a few seconds. ``--smallest`` stands for them.

``bench/tools`` holds what scripts share; ``bench/trainers`` holds the programs that ``bench.peers`` compares.
"""

"""Factor for the timeouts of tests, on top of what an idle machine needs.

A wait that ends when the thing happens costs nothing where it is long, so every helper that waits multiplies what its
caller says by this. How fast things are is the benches' to tell (tests/bench), never a test's.
"""

PATIENCE = 10.0

"""How fast pycontain is: always a ratio against a peer in the same run, on the same input.

One module per act. ``python -m benchmarks`` runs them all and prints one table; nothing here is part of the tests.
"""

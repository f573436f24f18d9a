"""The verbs of the command line, one module each: ``parser()`` says what it takes, ``act()`` does it."""

"""What a Dockerfile says, as values: parsed, expanded, and put in order. No input or output."""

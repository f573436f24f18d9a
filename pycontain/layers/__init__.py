"""Changesets: tar entries in, a tree out, and back."""

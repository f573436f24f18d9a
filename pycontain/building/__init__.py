"""Carrying a Dockerfile out: stages, the containers of RUN, what COPY and ADD make, and the cache of all of it."""

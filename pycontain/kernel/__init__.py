"""Thin wrappers over the kernel: one function per manual page."""

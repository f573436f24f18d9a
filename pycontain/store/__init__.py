"""Images on disk: an OCI image layout, its names, locks and snapshots."""

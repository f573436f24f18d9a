"""The documents of the OCI specifications as frozen values. Pure."""

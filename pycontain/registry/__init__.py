"""The client side of the OCI distribution specification 1.1: ``client`` pulls and pushes, ``push`` whole images.

From the caller down: ``client`` (registries and repositories), ``blob`` and ``upload`` (bytes that survive accidents),
``session`` (one registry or mirror, with authorization), ``auth`` and ``credentials`` (who we are), ``transport``
(HTTP). ``settings`` and ``challenge`` are values and grammar, and pure.
"""

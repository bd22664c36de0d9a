"""The HTTP server of the Production model."""

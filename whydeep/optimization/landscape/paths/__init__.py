"""Paths between two networks, and how high the risk rises on them."""

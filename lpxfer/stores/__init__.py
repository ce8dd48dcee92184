"""Stores: each the only owner of one place on disk."""

"""Engines: the same networks with other arithmetic."""

"""Tensors in, tensors out: intervals, transport, linear solves and hypergradients; no face here."""

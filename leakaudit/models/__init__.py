"""Networks with their weights, and faces: what an audit holds before any attack begins."""

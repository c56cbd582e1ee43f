"""The pipeline of an audit: plan, run, doubt, gate, conclude."""

"""What is asked: recorded workloads, their parquet contract, importers, sampling, replay and serving metrics.

Knows nothing of search spaces, engines or objectives.
"""

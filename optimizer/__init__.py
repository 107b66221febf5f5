"""What to try next, and what it was worth: objectives, studies, quality, cost, the Pareto front, the command line.

Knows engines only through `engine.backend` and workloads only through their replay and metrics.
"""

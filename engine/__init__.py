"""What serves the workload: engine configs, the backend seam and its members.

Knows nothing of workloads, objectives or reports.
"""

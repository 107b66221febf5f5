"""What was found: MLflow tracking, the report, tables, and the files a serving layer starts from.

Knows the results and never how they came about.
"""

"""Quality of a candidate's answers relative to the reference config; see `evaluate.py`."""

"""Rules that end a replay early: a protocol (`stop_rule.py`), one file per member.

    Violated    a percentile limit is exceeded beyond doubt
    Dominated   everything that a measured rival does is done worse beyond doubt
    Settled     every limit is met, or one exceeded, beyond doubt: enough evidence either way

Does not know SLOs, objectives or what becomes of a replay that was ended.
"""

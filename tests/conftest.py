"""What every test shares: Hypothesis neither times nor rolls dice (`--hypothesis-profile=explore` rolls them)."""

from hypothesis import HealthCheck, settings

settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("explore"), derandomize=True)
settings.load_profile("steady")

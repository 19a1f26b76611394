"""How hard hypothesis tries: `FUZZ=N` draws N examples for every property (`make fuzz`)."""

import os

from hypothesis import HealthCheck, settings

# No deadline for one example: a busy machine is no bug.
settings.register_profile("default", deadline=None)
settings.register_profile(
    "fuzz",
    deadline=None,
    max_examples=int(os.environ.get("FUZZ", "1")),
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz" if "FUZZ" in os.environ else "default")

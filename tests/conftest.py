"""Settings of every test: Hypothesis draws the same examples each time and knows no deadline."""

from hypothesis import HealthCheck, settings

# The project's own marker and option for gradient tests.
pytest_plugins = ["implicitly.verification.pytest_plugin"]

settings.register_profile(
    "specification",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=20,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("specification")

"""What holds for all tests."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # machines are as busy as they are
settings.load_profile("unhurried")

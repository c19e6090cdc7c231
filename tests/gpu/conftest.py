"""What tests of whole runs begin with."""

from tests.trainer_runs import attempts, data

__all__ = ["attempts", "data"]

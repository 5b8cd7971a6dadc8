"""What a set of weights reaches, in one table: ``python -m training.scorecard``."""

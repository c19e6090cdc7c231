"""What stands in an imported Tune where the source says nothing."""

PLACEHOLDER = "PLACEHOLDER"
"""Begins the comment at what a person has to fill in."""
DATA = "s3://BUCKET/DATA"
ARTIFACTS = "s3://BUCKET/ARTIFACTS"
METRIC = "val/JaccardIndex"

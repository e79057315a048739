"""Artifacts that do not lie in folders: in S3 buckets, and behind a tracking server that serves them. Nothing is
ever deleted there.
"""

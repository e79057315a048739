"""What model files are and do: scanned, described, tried and built, each in a limited process where it could do
harm.
"""

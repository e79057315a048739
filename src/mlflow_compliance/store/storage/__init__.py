"""Where bytes lie: folders of this machine, buckets, what a server serves."""

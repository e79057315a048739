"""The effects of changes, through MLflowClient and on files."""

"""The effects of changes, through MlflowClient and on files."""

"""The only package that imports mlflow or a database, or touches artifact files."""

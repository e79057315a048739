"""Policy as tests for MLflow stores: the public names."""

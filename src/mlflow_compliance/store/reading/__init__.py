"""From a store's rows to a Snapshot: by SQL, over REST, through MlflowClient."""

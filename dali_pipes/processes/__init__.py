"""Work in, results out: worker processes that may hang or crash without harm to the job."""

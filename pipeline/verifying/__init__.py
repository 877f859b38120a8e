"""Whether the record, the index and the log agree; what to do where they do not."""

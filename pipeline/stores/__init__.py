"""The stores: the record and the index, each behind its port."""

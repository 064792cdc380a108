"""States of dataset partitions: the gate."""

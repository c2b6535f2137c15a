"""An evaluation in, one HTML page out: recall, where it is lost, and the hardest queries with their super images."""

"""One backend following the metrics file: cursor, delivery, errors, and being waited for."""

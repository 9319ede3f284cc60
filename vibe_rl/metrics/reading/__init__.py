"""Reading metrics back: records, columns, samples of large files, and a live file as it grows."""

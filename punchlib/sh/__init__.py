"""`punch sh`: from a shell pipeline to a job that runs it on many workers (docs/sh.md)."""

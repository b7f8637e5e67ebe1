"""What Tailor is measured against, with its own programs: `make bench-*`."""

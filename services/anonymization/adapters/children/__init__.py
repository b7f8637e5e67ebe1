"""Reading texts in child processes with limits, so that one text can neither hold up the service nor end it."""

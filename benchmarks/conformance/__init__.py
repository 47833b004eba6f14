"""Public test suites of what we implement; see README.md here."""

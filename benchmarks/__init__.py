"""One file per question; see README.md here for how to rerun them."""

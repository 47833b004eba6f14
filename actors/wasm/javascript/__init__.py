"""JavaScript by the QuickJS image: a fresh copy of a started interpreter for each execution."""

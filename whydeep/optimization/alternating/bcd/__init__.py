"""Block coordinate descent by three- and two-splitting."""

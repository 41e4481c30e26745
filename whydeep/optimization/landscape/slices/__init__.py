"""The risk along lines and planes through a solution."""

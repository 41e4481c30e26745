"""Why do deep networks work? The theorems and algorithms of the lecture, run on one's own network and data."""

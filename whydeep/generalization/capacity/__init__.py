"""How rich is the class of functions? The lecture's bounds with their constants."""

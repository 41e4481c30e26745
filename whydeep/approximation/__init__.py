"""When and why are deep networks better than shallow ones?"""

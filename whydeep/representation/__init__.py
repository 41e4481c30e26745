"""What are the optimal, transferable representations of signals, and why is the network fragile?"""

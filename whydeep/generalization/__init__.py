"""How can a deep network generalize well without overfitting the noise?"""

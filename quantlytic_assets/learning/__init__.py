"""Features, labels and models: what a strategy's model learns from, how it is trained, and where it is kept."""

import os

# Gradient boosting works in threads that wait for one another hundreds of times a second. GNU's OpenMP keeps the
# processor for milliseconds while they wait: beside other busy processes a training of 0.2 s then takes 16 s, and burns
# half of them. With some ten microseconds it takes 1.7 s there, and as long as before on an idle machine; with none at
# all it would take five times as long on that. OpenMP reads this when scikit-learn is loaded, which happens later.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
